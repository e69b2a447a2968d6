#pragma once

#include "kdfs/base/types.h"
#include "kdfs/rt/function.h"
#include "kdfs/rt/scheduler.h"

#include <cstdint>
#include <deque>
#include <map>
#include <queue>
#include <vector>

namespace kdfs::sim {

// Whose event it is: one incarnation of one node. 0 is the world itself.
using OwnerId = uint64_t;

// Virtual time and every pending event of a simulation, run in the order (time, sequence). Time
// stands still while an event runs and jumps to the next one. Everything that runs goes into a
// digest, so that two runs can be compared.
class SimClock {
public:
    SimClock();

    TimePoint now() const { return now_; }
    // Runs `callback` at `when`, or next if that has passed. The id is never 0.
    TimerId add(TimePoint when, OwnerId owner, Function<void()> callback);
    void cancel(TimerId timer);
    // Forgets every event of `owner` and destroys their callbacks. Ends hold().
    void drop(OwnerId owner);
    // From now on events of `owner` that become due are kept, as by SIGSTOP; release() runs them
    // next, in the order they became due.
    void hold(OwnerId owner) { held_.try_emplace(owner); }
    void release(OwnerId owner);
    // Runs the next event; false if there is none at or before `until`, and now() is `until` then.
    bool run_one(TimePoint until);
    // Adds something to the digest.
    void trace(uint64_t value);
    uint64_t digest() const { return digest_; }
    uint64_t events_run() const { return events_run_; }
    // How many events ran since time last moved: grows without bound in a loop that never waits.
    uint64_t events_at_this_time() const { return events_at_this_time_; }

private:
    struct Slot {
        Function<void()> callback;
        OwnerId owner = 0;
        uint32_t generation = 0;
        bool used = false;
    };
    struct Due {
        TimePoint when;
        uint64_t sequence;
        TimerId timer;
        bool operator>(const Due& other) const {
            return when != other.when ? when > other.when : sequence > other.sequence;
        }
    };
    Slot* find(TimerId timer);
    void free_slot(Slot& slot);

    TimePoint now_;
    uint64_t next_sequence_ = 0;
    uint64_t digest_ = 0;
    uint64_t events_run_ = 0;
    uint64_t events_at_this_time_ = 0;
    std::vector<Slot> slots_;
    std::vector<uint32_t> free_slots_;
    // Due now, in order; what becomes due later waits in the heap.
    std::deque<TimerId> ready_;
    std::map<OwnerId, std::vector<TimerId>> held_;
    std::priority_queue<Due, std::vector<Due>, std::greater<>> later_;
};

// The Scheduler of one incarnation of a node. Its monotonic clock has an origin of its own, since
// such times mean nothing on another node or after a restart, and a rate.
class SimScheduler final : public Scheduler {
public:
    SimScheduler(SimClock& clock, OwnerId owner, Duration origin)
        : clock_(clock), owner_(owner), origin_(origin) {}
    TimePoint now() const override { return TimePoint(ticked()) + origin_; }
    // The clock runs this much too fast. Before anything is scheduled.
    void set_drift(int64_t ppm) { drift_ppm_ = ppm; }
    void post(Function<void()> callback) override;
    TimerId call_at(TimePoint when, Function<void()> callback) override;
    void cancel(TimerId timer) override { clock_.cancel(timer); }
    // From now on nothing more is scheduled, and what was is forgotten.
    void kill();
    OwnerId owner() const { return owner_; }

private:
    // What this clock has counted since the world began.
    Duration ticked() const;
    // When it has counted that much.
    TimePoint when_ticked(Duration count) const;

    SimClock& clock_;
    OwnerId owner_;
    Duration origin_;
    int64_t drift_ppm_ = 0;
    bool dead_ = false;
};

}  // namespace kdfs::sim
