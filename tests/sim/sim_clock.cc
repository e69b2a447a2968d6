#include "tests/sim/sim_clock.h"

#include "kdfs/base/check.h"

#include <algorithm>
#include <utility>

namespace kdfs::sim {

// Not 0, so that a time nobody set differs from one that was.
SimClock::SimClock() : now_(std::chrono::hours(1)) {}

TimerId SimClock::add(TimePoint when, OwnerId owner, Function<void()> callback) {
    if (free_slots_.empty()) {
        free_slots_.push_back(static_cast<uint32_t>(slots_.size()));
        slots_.emplace_back();
    }
    uint32_t index = free_slots_.back();
    free_slots_.pop_back();
    Slot& slot = slots_[index];
    slot.callback = std::move(callback);
    slot.owner = owner;
    slot.used = true;
    ++slot.generation;
    TimerId timer = (TimerId{slot.generation} << 32) | index;
    if (when <= now_) {
        // Whatever is in the heap for this instant was moved here before anything of it ran.
        ready_.push_back(timer);
    } else {
        later_.push({when, next_sequence_++, timer});
    }
    return timer;
}

SimClock::Slot* SimClock::find(TimerId timer) {
    size_t index = timer & UINT32_MAX;
    if (timer == 0 || index >= slots_.size()) {
        return nullptr;
    }
    Slot& slot = slots_[index];
    return slot.used && slot.generation == timer >> 32 ? &slot : nullptr;
}

void SimClock::release(Slot& slot) {
    slot.used = false;
    free_slots_.push_back(static_cast<uint32_t>(&slot - slots_.data()));
}

void SimClock::cancel(TimerId timer) {
    if (Slot* slot = find(timer)) {
        // The callback's destructor may come back here.
        Function<void()> callback = std::move(slot->callback);
        release(*slot);
    }
}

void SimClock::drop(OwnerId owner) {
    std::vector<Function<void()>> dropped;
    for (Slot& slot : slots_) {
        if (slot.used && slot.owner == owner) {
            dropped.push_back(std::move(slot.callback));
            release(slot);
        }
    }
}

bool SimClock::run_one(TimePoint until) {
    while (true) {
        if (ready_.empty()) {
            while (!later_.empty() && find(later_.top().timer) == nullptr) {
                later_.pop();
            }
            if (later_.empty() || later_.top().when > until) {
                now_ = std::max(now_, until);
                return false;
            }
            now_ = later_.top().when;
            events_at_this_time_ = 0;
            while (!later_.empty() && later_.top().when == now_) {
                ready_.push_back(later_.top().timer);
                later_.pop();
            }
        }
        TimerId timer = ready_.front();
        ready_.pop_front();
        if (Slot* slot = find(timer)) {
            trace(static_cast<uint64_t>(now_.time_since_epoch().count()) * 31 + slot->owner);
            ++events_run_;
            ++events_at_this_time_;
            Function<void()> callback = std::move(slot->callback);
            release(*slot);
            callback();
            return true;
        }
    }
}

void SimClock::trace(uint64_t value) {
    digest_ = (digest_ ^ value) * 0x9e3779b97f4a7c15ULL;
    digest_ ^= digest_ >> 29;
}

void SimScheduler::post(Function<void()> callback) {
    if (!dead_) {
        clock_.add(clock_.now(), owner_, std::move(callback));
    }
}

TimerId SimScheduler::call_at(TimePoint when, Function<void()> callback) {
    // So far off that it stands for never, and that adding to it would overflow.
    constexpr TimePoint kNever = TimePoint(std::chrono::hours(24 * 365 * 10));
    if (dead_) {
        return UINT64_MAX;
    }
    TimePoint on_world_clock = std::min(when, kNever) - origin_;
    return clock_.add(on_world_clock, owner_, std::move(callback));
}

void SimScheduler::kill() {
    dead_ = true;
    clock_.drop(owner_);
}

}  // namespace kdfs::sim
