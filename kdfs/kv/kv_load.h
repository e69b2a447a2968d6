#pragma once

#include "kdfs/kv/kv_store.h"

#include <optional>
#include <string>
#include <vector>

namespace kdfs {

// Reads that wait until the answer is in memory: for starting up. What was loaded may be gone from
// the cache again before it is read (the store writes and compacts meanwhile), so it is loaded
// anew, kLoadsMax times at most. `store` outlives the task.
inline constexpr int kLoadsMax = 1000;

inline Task<Result<std::optional<std::string>>> get_loaded(KvStore& store, std::string key) {
    Result<std::optional<std::string>> value = store.get(key);
    for (int i = 0; i < kLoadsMax && !value.ok() && value.error().code == Errc::kWouldBlock; ++i) {
        KDFS_CO_TRY(co_await store.load(key));
        value = store.get(key);
    }
    co_return value;
}

inline Task<Result<std::vector<KvEntry>>> scan_loaded(KvStore& store,
                                                      std::string first,
                                                      std::string beyond,
                                                      uint64_t entries_max) {
    Result<std::vector<KvEntry>> found = store.scan(first, beyond, entries_max);
    for (int i = 0; i < kLoadsMax && !found.ok() && found.error().code == Errc::kWouldBlock; ++i) {
        KDFS_CO_TRY(co_await store.load_range(first, beyond, entries_max));
        found = store.scan(first, beyond, entries_max);
    }
    co_return found;
}

}  // namespace kdfs
