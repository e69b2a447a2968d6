#pragma once

#include "kdfs/base/result.h"
#include "kdfs/rt/function.h"
#include "kdfs/rt/task.h"

namespace kdfs {

// Runs calls that may block, such as a key-value store's, away from the loop. The real one is a
// bounded pool of threads (rt/thread_offload.h); the simulator needs none.
class Offload {
public:
    virtual ~Offload() = default;
    // Runs `work` on some other thread and completes on the loop with its result. `work` touches
    // nothing that the loop uses meanwhile. Once awaited it runs to its end, also if the waiting
    // coroutine is destroyed; so `work` owns what it uses, or its owner waits for it. Calls run
    // side by side and complete in any order; more than the pool's threads wait in a queue.
    virtual Task<Status> run(Function<Status()> work) = 0;
};

}  // namespace kdfs
