#pragma once

#include "kdfs/base/types.h"
#include "kdfs/rt/function.h"

#include <coroutine>
#include <cstdint>

namespace kdfs {

using TimerId = uint64_t;

// The event loop of one shard: runs callbacks one at a time on one thread. Equal times run in
// posting order. Nothing here is thread-safe except where an implementation says so (see
// rt/reactor.h).
class Scheduler {
public:
    virtual ~Scheduler() = default;
    // Monotonic time, constant during one turn of the loop.
    virtual TimePoint now() const = 0;
    // Runs `callback` in a later turn, never from inside this call.
    virtual void post(Function<void()> callback) = 0;
    // Runs `callback` at `when` or soon after; never from inside this call. Never gives the id 0.
    virtual TimerId call_at(TimePoint when, Function<void()> callback) = 0;
    // Forgets a timer. One that ran already, or 0, is ignored.
    virtual void cancel(TimerId timer) = 0;

    void post_resume(std::coroutine_handle<> handle) {
        post([handle] { handle.resume(); });
    }
};

}  // namespace kdfs
