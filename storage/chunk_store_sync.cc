// Making changes durable. See chunk_store.h for the rules.

#include "storage/chunk_store.h"

#include <utility>

namespace kdfs::storage {

Task<Status> ChunkStore::sync() {
    uint64_t wanted = last_seq_;
    while (durable_seq_ < wanted && !failure_) {
        if (syncing_) {
            co_await sync_done_.wait();
        } else {
            KDFS_CO_TRY(co_await sync_once());
        }
    }
    if (failure_) {
        co_return *failure_;
    }
    co_return Status();
}

bool ChunkStore::has_plain_changes(const ChunkKey& key) const {
    for (const DirtyMap* changes : {&dirty_, being_synced_}) {
        if (changes != nullptr) {
            auto found = changes->find(key);
            if (found != changes->end() && found->second.plain) {
                return true;
            }
        }
    }
    return false;
}

Task<Status> ChunkStore::before_plain_change(ChunkKey key) {
    auto found = dirty_.find(key);
    if (found != dirty_.end() && found->second.redone) {
        co_return co_await sync();
    }
    co_return Status();
}

Task<Status> ChunkStore::sync_change(ChunkKey key) {
    if (failure_) {
        co_return *failure_;
    }
    if (has_plain_changes(key)) {
        co_return co_await sync();
    }
    Status synced = co_await kv_.sync();
    if (!synced.ok()) {
        co_return fail(synced.error());
    }
    co_return synced;
}

// A removal writes no blocks, and open() does not fall back from a record that is not there.
Task<Status> ChunkStore::sync_removals() {
    if (failure_) {
        co_return *failure_;
    }
    Status synced = co_await kv_.sync();
    if (!synced.ok()) {
        co_return fail(synced.error());
    }
    co_return synced;
}

Task<Status> ChunkStore::sync_data() {
    Status synced = co_await slabs_->sync(io_scope_);
    if (!synced.ok()) {
        co_return fail(synced.error());
    }
    co_return synced;
}

Task<Status> ChunkStore::sync_once() {
    syncing_ = true;
    sync_done_.reset();
    uint64_t taken = last_seq_;
    DirtyMap done = std::exchange(dirty_, {});
    being_synced_ = &done;
    std::vector<Task<Status>> parts;
    parts.push_back(slabs_->sync(io_scope_));
    parts.push_back(kv_.sync());
    std::vector<Status> results = co_await when_all(io_scope_, std::move(parts));
    for (Status& result : results) {
        if (!result.ok()) {
            (void)fail(result.error());
        }
    }
    env_.fault_point("store.sync.before_release");
    if (!failure_) {
        after_sync(taken, done);
    }
    being_synced_ = nullptr;
    syncing_ = false;
    sync_done_.set();
    if (failure_) {
        co_return *failure_;
    }
    co_return Status();
}

// Changes up to `durable` are on stable storage now, and nothing falls back behind them.
void ChunkStore::after_sync(uint64_t durable, const DirtyMap& done) {
    durable_seq_ = durable;
    KvBatch batch;
    for (const auto& [key, dirty] : done) {
        for (const Extent& extent : dirty.held) {
            allocator_->unref(extent, last_seq_);
        }
        if (dirty.fallback_seq != 0) {
            batch.erase(fallback_key(key, dirty.fallback_seq));
        }
    }
    while (!redo_.empty() && redo_.front().first <= durable) {
        batch.erase(redo_key(redo_.front().first));
        redo_bytes_ -= redo_.front().second;
        redo_.pop_front();
    }
    allocator_->release(durable_seq_);
    put_durable(batch);
    // Not synced: a crash that loses it costs open() some checking, nothing else.
    Status applied = kv_.apply(batch);
    if (!applied.ok()) {
        (void)fail(applied.error());
    }
}

Task<void> ChunkStore::sync_loop() {
    while (!stopping_ && !failure_) {
        if (last_seq_ == durable_seq_) {
            wake_sync_.reset();
            co_await wake_sync_.wait();
            continue;
        }
        sync_early_.reset();
        co_await sync_early_.wait_until(env_.now() + options_.sync_interval);
        if (!stopping_) {
            (void)co_await sync();
        }
    }
}

}  // namespace kdfs::storage
