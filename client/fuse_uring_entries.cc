#include "client/fuse_uring_entries.h"

#include <algorithm>

namespace kdfs::client {

RingEntries::RingEntries(uint32_t queues, uint32_t depth)
    : depth_(depth), live_(queues * depth), entries_(live_), live_in_queue_(queues, depth) {
    waiting_.reserve(live_);
}

std::vector<RingEntries::Waiting>::const_iterator RingEntries::place_of(uint64_t unique) const {
    return std::lower_bound(
        waiting_.begin(),
        waiting_.end(),
        unique,
        [](const Waiting& one, uint64_t wanted) { return one.unique < wanted; });
}

bool RingEntries::arrived(uint32_t entry, uint64_t unique, uint64_t commit_id) {
    if (entry >= entries_.size() || entries_[entry].state != State::kWithKernel) {
        return false;
    }
    auto place = place_of(unique);
    if (place != waiting_.end() && place->unique == unique) {
        return false;
    }
    waiting_.insert(place, {unique, entry});
    entries_[entry] = {State::kWithUs, unique, commit_id};
    return true;
}

std::optional<RingEntries::Answered> RingEntries::answer(uint64_t unique) {
    auto place = place_of(unique);
    if (place == waiting_.end() || place->unique != unique) {
        return std::nullopt;
    }
    Answered out{place->entry, entries_[place->entry].commit_id};
    entries_[place->entry].state = State::kWithKernel;
    waiting_.erase(place);
    return out;
}

void RingEntries::lost(uint32_t entry) {
    if (entry >= entries_.size() || entries_[entry].state == State::kLost) {
        return;
    }
    if (entries_[entry].state == State::kWithUs) {
        waiting_.erase(place_of(entries_[entry].unique));
    }
    entries_[entry].state = State::kLost;
    --live_;
    --live_in_queue_[queue_of(entry)];
}

bool RingEntries::complete() const {
    return std::find(live_in_queue_.begin(), live_in_queue_.end(), 0u) == live_in_queue_.end();
}

}  // namespace kdfs::client
