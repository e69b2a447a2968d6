#pragma once

#include "kdfs/rt/offload.h"
#include "kdfs/rt/reactor.h"
#include "kdfs/rt/sync.h"

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace kdfs {

// Offload on a few threads of its own. What `work` captures is destroyed on the loop; between,
// only the thread touches it.
//
// Bounds: `threads` calls run, kCallsMax run or are queued; further callers wait their turn before
// they count as awaited. Destroying it runs what is queued to the end; it must be gone before the
// reactor is, and nobody may wait in run() then.
class ThreadOffload : public Offload {
public:
    static constexpr size_t kCallsMax = 1024;

    ThreadOffload(Reactor& reactor, size_t threads);
    ~ThreadOffload() override;
    ThreadOffload(const ThreadOffload&) = delete;
    ThreadOffload& operator=(const ThreadOffload&) = delete;

    Task<Status> run(Function<Status()> work) override;

private:
    struct Call;
    void submit(std::shared_ptr<Call> call);
    void work();

    Reactor& reactor_;
    // Shared with completions that are still posted when this goes.
    std::shared_ptr<Semaphore> places_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::shared_ptr<Call>> queue_;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace kdfs
