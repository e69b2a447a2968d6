#pragma once

#include "storage/chunk_record.h"

#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <utility>

namespace kdfs::storage {

// The records used last, within a bound of bytes. Also remembers that a chunk is absent.
class RecordCache {
public:
    explicit RecordCache(uint64_t bytes_max) : bytes_max_(bytes_max) {}

    // Nothing if the cache does not know; a null pointer if it knows that there is none.
    std::optional<RecordPtr> get(const ChunkKey& key) {
        auto found = index_.find(key);
        if (found == index_.end()) {
            return std::nullopt;
        }
        order_.splice(order_.begin(), order_, found->second);
        return found->second->second;
    }
    void put(const ChunkKey& key, RecordPtr record) {
        auto found = index_.find(key);
        if (found != index_.end()) {
            bytes_ -= cost(found->second->second);
            order_.erase(found->second);
            index_.erase(found);
        }
        bytes_ += cost(record);
        order_.emplace_front(key, std::move(record));
        index_.emplace(key, order_.begin());
        while (bytes_ > bytes_max_ && order_.size() > 1) {
            bytes_ -= cost(order_.back().second);
            index_.erase(order_.back().first);
            order_.pop_back();
        }
    }

private:
    struct Hash {
        size_t operator()(const ChunkKey& key) const {
            return std::hash<ChunkId>()(key.chunk) ^ std::hash<ChainId>()(key.chain);
        }
    };
    using Order = std::list<std::pair<ChunkKey, RecordPtr>>;

    static uint64_t cost(const RecordPtr& record) {
        constexpr uint64_t kEntryBytes = 256;  // nodes, record, vectors, about
        return record ? kEntryBytes + record->blocks.size() * 16 : kEntryBytes;
    }

    uint64_t bytes_max_;
    uint64_t bytes_ = 0;
    Order order_;  // the newest first
    std::unordered_map<ChunkKey, Order::iterator, Hash> index_;
};

}  // namespace kdfs::storage
