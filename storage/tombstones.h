#pragma once

#include "storage/chunk_record.h"
#include "storage/chunk_slots.h"

#include <algorithm>
#include <deque>
#include <map>
#include <utility>
#include <vector>

namespace kdfs::storage {

// What is remembered of chunks removed lately: their version and recent writers, so that a write
// that comes again after its chunk was removed does not bring it back. Also which truncations found
// no chunk, so that one that comes again does not cut what was written since. In memory, which is
// enough: a request names a chain version, and that changes when a member starts anew. Bound:
// kEntriesMax chunks, the oldest go first; a repetition that is later than so many removals is not
// known.
class Tombstones {
public:
    static constexpr size_t kEntriesMax = 16384;

    void put(const ChunkSlots::Key& key, const ChunkRecord& removed) {
        auto [place, is_new] = entries_.try_emplace(key);
        if (is_new) {
            order_.push_back(key);
        }
        Entry& entry = place->second;
        entry.version = std::max(entry.version, removed.version);
        std::vector<RecentWrite>& recent = entry.recent;
        for (RecentWrite write : removed.recent) {
            // One entry per session, so that none that comes often pushes the others out.
            write.write_id = std::max(write.write_id, newest(key, write.session));
            std::erase_if(recent, [&](const RecentWrite& w) { return w.session == write.session; });
            recent.push_back(write);
        }
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
            for (const RecentWrite& write : found->second.recent) {
                out = write.session == session ? std::max(out, write.write_id) : out;
            }
        }
        return out;
    }
    // The highest version the removed chunk had; 0 if none is known.
    ChunkVersion version(const ChunkSlots::Key& key) const {
        auto found = entries_.find(key);
        return found == entries_.end() ? ChunkVersion() : found->second.version;
    }
    // Forgets a chain of a target: what is removed or made there now follows another history.
    void forget(TargetId target, ChainId chain) {
        std::erase_if(order_, [&](const ChunkSlots::Key& key) {
            bool goes = key.first == target && key.second.chain == chain;
            if (goes) {
                entries_.erase(key);
            }
            return goes;
        });
    }
    bool empty() const { return order_.empty(); }

private:
    struct Entry {
        ChunkVersion version;
        std::vector<RecentWrite> recent;
    };
    std::map<ChunkSlots::Key, Entry> entries_;
    std::deque<ChunkSlots::Key> order_;  // oldest first, each once
};

}  // namespace kdfs::storage
