#pragma once

#include "storage/chunk_record.h"
#include "storage/chunk_slots.h"

#include <algorithm>
#include <deque>
#include <map>
#include <utility>
#include <vector>

namespace kdfs::storage {

// The recent writers of chunks removed lately, so that a write that comes again after its chunk was
// removed does not bring it back. In memory: a help against repetitions that were long on their
// way, not a promise. Bound: kEntriesMax chunks.
class Tombstones {
public:
    static constexpr size_t kEntriesMax = 4096;

    void put(const ChunkSlots::Key& key, const RecordPtr& removed) {
        std::vector<RecentWrite>& recent = entries_[key];
        if (recent.empty()) {
            order_.push_back(key);
        }
        recent.insert(recent.end(), removed->recent.begin(), removed->recent.end());
        if (recent.size() > ChunkRecord::kRecentMax) {
            recent.erase(recent.begin(),
                         recent.end() - static_cast<ptrdiff_t>(ChunkRecord::kRecentMax));
        }
        while (order_.size() > kEntriesMax) {
            entries_.erase(order_.front());
            order_.pop_front();
        }
    }
    // The highest write id of the session that the removed chunk had; 0 if none is known.
    uint64_t newest(const ChunkSlots::Key& key, SessionId session) const {
        uint64_t out = 0;
        auto found = entries_.find(key);
        if (found != entries_.end()) {
            for (const RecentWrite& write : found->second) {
                out = write.session == session ? std::max(out, write.write_id) : out;
            }
        }
        return out;
    }

private:
    std::map<ChunkSlots::Key, std::vector<RecentWrite>> entries_;
    std::deque<ChunkSlots::Key> order_;  // oldest first
};

}  // namespace kdfs::storage
