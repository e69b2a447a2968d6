#pragma once

#include "kdfs/base/types.h"
#include "kdfs/rt/function.h"
#include "kdfs/rt/scheduler.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace kdfs {

// Timers in order of (time, posting). Made for the usual life of a timer here, which is to be
// cancelled long before it is due: cancelling is O(1), and the heap is cleaned once more than half
// of it is dead, so its size is bounded by twice the timers that live plus kDeadMin.
class TimerQueue {
public:
    static constexpr size_t kDeadMin = 64;

    TimerId add(TimePoint when, Function<void()> callback);
    void cancel(TimerId id);
    // When the first timer is due; nothing if there is none.
    std::optional<TimePoint> next();
    // Takes the first timer that is due at `now`; an empty
    // function if there is none.
    Function<void()> take_due(TimePoint now);
    size_t live() const { return heap_.size() - dead_; }
    size_t heap_size() const { return heap_.size(); }
    void clear();

private:
    struct Slot {
        uint32_t generation = 1;
        bool live = false;
        Function<void()> callback;
    };
    struct Entry {
        TimePoint when;
        uint64_t sequence;
        uint32_t slot;
        uint32_t generation;
    };
    static bool later(const Entry& a, const Entry& b) {
        return a.when != b.when ? a.when > b.when : a.sequence > b.sequence;
    }
    bool dead(const Entry& entry) const {
        return slots_[entry.slot].generation != entry.generation;
    }
    void release(uint32_t slot);
    void drop_dead_front();
    void compact();

    std::vector<Entry> heap_;
    std::vector<Slot> slots_;
    std::vector<uint32_t> free_;
    uint64_t next_sequence_ = 0;
    size_t dead_ = 0;
};

}  // namespace kdfs
