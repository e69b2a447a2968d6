#pragma once

#include "kdfs/base/result.h"
#include "kdfs/rt/task.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kdfs {

// An atomic group of changes, applied in the order they were added.
class KvBatch {
public:
    struct Change {
        enum class Kind : uint8_t { kPut, kErase, kEraseRange };
        Kind kind = Kind::kPut;
        // For kEraseRange: first key, and in `value` the first key beyond.
        std::string key;
        std::string value;
    };
    void put(std::string key, std::string value) {
        changes_.push_back({Change::Kind::kPut, std::move(key), std::move(value)});
    }
    void erase(std::string key) { changes_.push_back({Change::Kind::kErase, std::move(key), {}}); }
    void erase_range(std::string first, std::string beyond) {
        changes_.push_back({Change::Kind::kEraseRange, std::move(first), std::move(beyond)});
    }
    void append(KvBatch other) {
        for (Change& change : other.changes_) {
            changes_.push_back(std::move(change));
        }
    }
    bool empty() const { return changes_.empty(); }
    const std::vector<Change>& changes() const { return changes_; }

private:
    std::vector<Change> changes_;
};

struct KvEntry {
    std::string key;
    std::string value;
};

// An ordered map of byte strings. Reads and apply() never wait: they see every applied batch. A
// read whose answer is not in memory fails with kWouldBlock; `co_await load(...)` brings it in,
// then the read is done again. That is what lets a whole namespace operation run as one step
// without locks.
//
// Durability: apply() makes a batch visible and orders it; flush() hands all applied batches to the
// operating system, so that they survive the death of the process; sync() makes them survive a
// power cut. A crash loses a suffix of the batches, never one in the middle and never part of one.
class KvStore {
public:
    virtual ~KvStore() = default;
    virtual Result<std::optional<std::string>> get(std::string_view key) = 0;
    // Entries with first <= key < beyond in key order, at most `entries_max`. An empty `beyond`
    // means to the end.
    virtual Result<std::vector<KvEntry>> scan(std::string_view first,
                                              std::string_view beyond,
                                              uint64_t entries_max) = 0;
    // Brings one key, or a range, into memory, off the loop if that blocks.
    virtual Task<Status> load(std::string key) = 0;
    virtual Task<Status> load_range(std::string first,
                                    std::string beyond,
                                    uint64_t entries_max) = 0;
    // kIo if the store failed; it then takes no more batches.
    virtual Status apply(const KvBatch& batch) = 0;
    virtual Status flush() = 0;
    // Concurrent calls share one sync of the device.
    virtual Task<Status> sync() = 0;
};

}  // namespace kdfs
