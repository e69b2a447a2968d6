#pragma once

#include "kdfs/base/result.h"
#include "kdfs/kv/kv_store.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/task.h"

#include <chrono>
#include <cstdint>
#include <optional>

namespace kdfs::mds {

// The journal of the metadata server: every change of its state is a batch that goes through here,
// in one order. Nothing above knows where the journal is kept.
class MetaLog {
public:
    virtual ~MetaLog() = default;
    // Makes the batch visible in the store and gives its place in the order. kIo if the journal
    // failed; it then takes no more batches.
    virtual Result<uint64_t> append(const KvBatch& batch) = 0;
    // The place of the last batch; 0 before the first.
    virtual uint64_t appended() const = 0;
    // Completes when the batch of that place survives the death of this process: replies wait for
    // it.
    virtual Task<Status> committed(uint64_t place) = 0;
    // Completes when everything appended before the call is on stable storage. Concurrent calls
    // share the work.
    virtual Task<Status> durable() = 0;
    // Makes everything durable and ends background work.
    virtual Task<Status> stop() = 0;
};

// The journal is the store's own write-ahead log. One flush() serves all batches of a turn of the
// loop. What was appended is on stable storage within `sync_interval`, also if nobody asks.
// After the first error of the store every call fails with it.
class LocalMetaLog final : public MetaLog {
public:
    static constexpr Duration kSyncIntervalDefault = std::chrono::seconds(1);

    // Both outlive this.
    LocalMetaLog(Env& env, KvStore& store, Duration sync_interval = kSyncIntervalDefault);

    Result<uint64_t> append(const KvBatch& batch) override;
    uint64_t appended() const override { return appended_; }
    Task<Status> committed(uint64_t place) override;
    Task<Status> durable() override;
    Task<Status> stop() override;

private:
    // In a turn of its own, after everything that is ready now.
    Task<void> flush_turn();
    Task<void> sync_later();
    void fail(const Error& error);

    Env& env_;
    KvStore& store_;
    Duration sync_interval_;
    uint64_t appended_ = 0;
    uint64_t flushed_ = 0;
    uint64_t synced_ = 0;
    bool flush_posted_ = false;
    bool syncing_ = false;
    bool sync_planned_ = false;
    std::optional<Error> failed_;
    Event flush_done_;
    Event sync_done_;
    Event stop_;
    TaskScope scope_;
};

}  // namespace kdfs::mds
