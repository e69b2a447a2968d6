#pragma once

#include "storage/chunk_slots.h"

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

namespace kdfs::storage {

// Writes that this daemon refused for want of room, so that one that comes again late is not done
// after its sender was told so. In memory, which is enough: a request names a chain version, and
// that changes when a member starts anew. Bounds: kEntriesMax chunks, the oldest go first;
// kSessionsMax sessions of each.
class Refusals {
public:
    static constexpr size_t kEntriesMax = 16384;
    static constexpr size_t kSessionsMax = 8;

    struct Write {
        uint64_t chain_version = 0;
        SessionId session;
        uint64_t write_id = 0;
    };

    void put(const ChunkSlots::Key& key, const Write& refused) {
        auto [place, is_new] = entries_.try_emplace(key);
        if (is_new) {
            order_.push_back(key);
        }
        std::vector<Write>& writes = place->second;
        std::erase_if(writes, [&](const Write& w) { return w.session == refused.session; });
        writes.push_back(refused);
        if (writes.size() > kSessionsMax) {
            writes.erase(writes.begin());
        }
        if (order_.size() > kEntriesMax) {
            entries_.erase(order_.front());
            order_.pop_front();
        }
    }
    // Also true of the session's earlier writes: each is sent when the one before is decided.
    bool contains(const ChunkSlots::Key& key, const Write& write) const {
        auto found = entries_.find(key);
        return found != entries_.end() &&
               std::any_of(found->second.begin(), found->second.end(), [&](const Write& w) {
                   return w.session == write.session && w.chain_version == write.chain_version &&
                          w.write_id >= write.write_id;
               });
    }

private:
    std::map<ChunkSlots::Key, std::vector<Write>> entries_;
    std::deque<ChunkSlots::Key> order_;  // oldest first, each once
};

}  // namespace kdfs::storage
