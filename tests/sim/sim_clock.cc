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

void SimClock::free_slot(Slot& slot) {
    slot.used = false;
    free_slots_.push_back(static_cast<uint32_t>(&slot - slots_.data()));
}

void SimClock::cancel(TimerId timer) {
    if (Slot* slot = find(timer)) {
        // The callback's destructor may come back here.
        Function<void()> callback = std::move(slot->callback);
        free_slot(*slot);
    }
}

void SimClock::release(OwnerId owner) {
    auto held = held_.extract(owner);
    if (!held.empty()) {
        ready_.insert(ready_.end(), held.mapped().begin(), held.mapped().end());
    }
}

void SimClock::drop(OwnerId owner) {
    held_.erase(owner);
    std::vector<Function<void()>> dropped;
    for (Slot& slot : slots_) {
        if (slot.used && slot.owner == owner) {
            dropped.push_back(std::move(slot.callback));
            free_slot(slot);
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
        Slot* slot = find(timer);
        auto held = slot == nullptr ? held_.end() : held_.find(slot->owner);
        if (held != held_.end()) {
            held->second.push_back(timer);
        } else if (slot != nullptr) {
            trace(static_cast<uint64_t>(now_.time_since_epoch().count()) * 31 + slot->owner);
            ++events_run_;
            ++events_at_this_time_;
            Function<void()> callback = std::move(slot->callback);
            free_slot(*slot);
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
    TimePoint on_world_clock = when_ticked(std::min(when, kNever) - origin_ - TimePoint());
    return clock_.add(on_world_clock, owner_, std::move(callback));
}

namespace {

constexpr int64_t kMillion = 1'000'000;
// Further than any run goes; times below can be multiplied by a million.
constexpr Duration kFar = std::chrono::hours(2);

}  // namespace

Duration SimScheduler::ticked() const {
    int64_t real = clock_.now().time_since_epoch().count();
    return Duration(real + real / kMillion * drift_ppm_ + real % kMillion * drift_ppm_ / kMillion);
}

TimePoint SimScheduler::when_ticked(Duration count) const {
    if (drift_ppm_ == 0 || count > kFar) {
        return TimePoint(count);
    }
    // Rounded up: who wakes must find that the time has come.
    int64_t rate = kMillion + drift_ppm_;
    return TimePoint(Duration((count.count() * kMillion + rate - 1) / rate + 1));
}

void SimScheduler::kill() {
    dead_ = true;
    clock_.drop(owner_);
}

}  // namespace kdfs::sim
