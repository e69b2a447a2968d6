#pragma once

#include "kdfs/rt/sync.h"
#include "mds/state.h"

#include <chrono>
#include <vector>

namespace kdfs::mds {

// Removes the chunks of files that are gone, in the background. The queue is in the store; an entry
// leaves it when every chain confirmed. Chains are visited in stripe order: those the size tells
// of, then on until one had nothing, because an owner that never reported its size wrote from the
// start.
// Bounds: kBatch files at once; a failed one is tried again kRetryDelay later.
class Gc {
public:
    static constexpr uint64_t kBatch = 32;
    static constexpr Duration kRetryDelay = std::chrono::seconds(1);
    static constexpr Duration kAttempt = std::chrono::seconds(10);

    // `state` outlives this.
    explicit Gc(State& state)
        : state_(state), scope_(state.env.scheduler()), parts_(state.env.scheduler()) {}
    void start();
    Task<void> stop();
    // The queue grew.
    void wake();

private:
    Task<void> run();
    // Once through the queue. False if something has to be tried again.
    Task<bool> pass();
    Task<Result<std::vector<DeadData>>> next(DataId after);
    Task<Status> collect(DeadData dead);
    Task<Status> finish(DataId data);

    State& state_;
    Event work_;
    TaskScope scope_;
    // What the tasks of scope_ wait for: closed after it.
    TaskScope parts_;
};

}  // namespace kdfs::mds
