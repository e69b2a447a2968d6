#pragma once

#include "kdfs/base/random.h"
#include "kdfs/kv/kv_store.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kdfs {

// What a MemKv keeps: the part that outlives the store, as a directory outlives a process. Batches
// are numbered from 1 in the order applied; synced() <= flushed() <= applied(). Batches that are
// not synced can be taken back, newest first.
class MemKvMedium {
public:
    using Map = std::map<std::string, std::string, std::less<>>;

    const Map& map() const { return map_; }
    uint64_t applied() const { return applied_; }
    uint64_t flushed() const { return flushed_; }
    uint64_t synced() const { return synced_; }

    void apply(const KvBatch& batch);
    void mark_flushed() { flushed_ = applied_; }
    // Batches up to `batch` are durable.
    void mark_synced(uint64_t batch);
    // The process dies: of what was not flushed, an arbitrary suffix is lost.
    void kill_process(Random& random);
    // The power goes: of what was not synced, an arbitrary suffix is lost.
    void cut_power(Random& random);
    // Takes back every batch after `keep`, which is not below synced().
    void crash(uint64_t keep);

private:
    // The values before one batch, in the order of its changes.
    using Undo = std::vector<std::pair<std::string, std::optional<std::string>>>;
    void change(const KvBatch::Change& change, Undo& undo);

    Map map_;
    // One per batch that is not synced, oldest first.
    std::deque<Undo> undo_;
    uint64_t applied_ = 0;
    uint64_t flushed_ = 0;
    uint64_t synced_ = 0;
};

// A KvStore in memory with the crash semantics of a real one. `env` and `medium` outlive it. To
// crash it: destroy it, call kill_process() or cut_power() on the medium, build a new one. Faults
// it asks Env for: "kv.would_block" (a read that must be loaded first), "kv.slow_sync".
class MemKv final : public KvStore {
public:
    static constexpr Duration kSyncTime = std::chrono::microseconds(500);
    static constexpr Duration kSlowSyncTime = std::chrono::milliseconds(300);
    static constexpr Duration kLoadTime = std::chrono::microseconds(100);
    // How many loaded ranges are remembered as being in memory.
    static constexpr size_t kWarmRangesMax = 256;

    MemKv(Env& env, MemKvMedium& medium) : env_(env), medium_(medium) {}

    Result<std::optional<std::string>> get(std::string_view key) override;
    Result<std::vector<KvEntry>> scan(std::string_view first,
                                      std::string_view beyond,
                                      uint64_t entries_max) override;
    Task<Status> load(std::string key) override;
    Task<Status> load_range(std::string first, std::string beyond, uint64_t entries_max) override;
    Status apply(const KvBatch& batch) override;
    Status flush() override;
    Task<Status> sync() override;

private:
    bool must_load(std::string_view first, std::string_view beyond);
    void warm(std::string first, std::string beyond);

    Env& env_;
    MemKvMedium& medium_;
    std::deque<std::pair<std::string, std::string>> warm_;
    bool syncing_ = false;
    Event sync_done_;
};

}  // namespace kdfs
