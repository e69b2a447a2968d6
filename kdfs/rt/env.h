#pragma once

#include "kdfs/base/log.h"
#include "kdfs/base/random.h"
#include "kdfs/base/types.h"
#include "kdfs/rt/scheduler.h"
#include "kdfs/rt/transport.h"

#include <string_view>

namespace kdfs {

// The node's wall clock: for file times and log lines only. It may step and drift.
class WallClock {
public:
    virtual ~WallClock() = default;
    virtual WallTime now() const = 0;
};

// Everything a node knows of the world outside it: time, randomness, network, log. Only main() and
// the simulator build one; everybody else gets it handed in and keeps the reference, which outlives
// them. Disks and key-value stores are handed in beside it, because a node has several.
class Env {
public:
    virtual ~Env() = default;
    virtual Scheduler& scheduler() = 0;
    virtual WallClock& wall_clock() = 0;
    virtual Transport& transport() = 0;
    virtual Random& random() = 0;
    virtual LogSink& log() = 0;
    // True when a named fault is to happen here now. Always false outside the simulator, which
    // counts the places it was asked for.
    virtual bool fault(std::string_view name) {
        (void)name;
        return false;
    }
    // A place in the middle of an operation of several steps, where the simulator may let the
    // process die: nothing that waits after it goes on. Nothing outside the simulator. The names
    // are listed in tests/sim/fault_points.h.
    virtual void fault_point(std::string_view name) { (void)name; }
    TimePoint now() { return scheduler().now(); }
};

}  // namespace kdfs
