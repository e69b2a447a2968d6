#include "kdfs/rt/timer_queue.h"

#include <algorithm>
#include <utility>

namespace kdfs {

TimerId TimerQueue::add(TimePoint when, Function<void()> callback) {
    uint32_t index = 0;
    if (free_.empty()) {
        index = static_cast<uint32_t>(slots_.size());
        slots_.emplace_back();
    } else {
        index = free_.back();
        free_.pop_back();
    }
    Slot& slot = slots_[index];
    slot.callback = std::move(callback);
    slot.live = true;
    heap_.push_back({when, next_sequence_++, index, slot.generation});
    std::push_heap(heap_.begin(), heap_.end(), later);
    return (static_cast<uint64_t>(slot.generation) << 32) | index;
}

void TimerQueue::cancel(TimerId id) {
    auto index = static_cast<uint32_t>(id);
    auto generation = static_cast<uint32_t>(id >> 32);
    if (index >= slots_.size() || !slots_[index].live || slots_[index].generation != generation) {
        return;
    }
    // The callback's own destructor may come back here, so the slot is free before it runs.
    Function<void()> callback = std::move(slots_[index].callback);
    release(index);
    ++dead_;
    if (dead_ > kDeadMin && dead_ > heap_.size() / 2) {
        compact();
    }
}

std::optional<TimePoint> TimerQueue::next() {
    drop_dead_front();
    if (heap_.empty()) {
        return std::nullopt;
    }
    return heap_.front().when;
}

Function<void()> TimerQueue::take_due(TimePoint now) {
    drop_dead_front();
    if (heap_.empty() || heap_.front().when > now) {
        return {};
    }
    uint32_t index = heap_.front().slot;
    std::pop_heap(heap_.begin(), heap_.end(), later);
    heap_.pop_back();
    Function<void()> callback = std::move(slots_[index].callback);
    release(index);
    return callback;
}

void TimerQueue::clear() {
    heap_.clear();
    dead_ = 0;
    // A destructor may cancel other timers: they must look gone already.
    std::vector<Slot> slots = std::exchange(slots_, {});
    free_.clear();
}

void TimerQueue::release(uint32_t index) {
    Slot& slot = slots_[index];
    slot.live = false;
    // 0 is skipped, so that no id is ever 0.
    slot.generation = slot.generation == UINT32_MAX ? 1 : slot.generation + 1;
    free_.push_back(index);
}

void TimerQueue::drop_dead_front() {
    while (!heap_.empty() && dead(heap_.front())) {
        std::pop_heap(heap_.begin(), heap_.end(), later);
        heap_.pop_back();
        --dead_;
    }
}

void TimerQueue::compact() {
    std::erase_if(heap_, [this](const Entry& entry) { return dead(entry); });
    std::make_heap(heap_.begin(), heap_.end(), later);
    dead_ = 0;
}

}  // namespace kdfs
