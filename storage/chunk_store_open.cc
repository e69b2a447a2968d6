// Recovery. See chunk_store.h for the rules.

#include "kdfs/base/codec.h"
#include "storage/chunk_store.h"

#include <algorithm>
#include <utility>

namespace kdfs::storage {
namespace {

constexpr uint64_t kStoreFormat = 1;

std::string meta_key() { return std::string(1, static_cast<char>(KeyKind::kMeta)); }

// The first key behind all of a kind.
std::string end_of(KeyKind kind) {
    return std::string(1, static_cast<char>(static_cast<char>(kind) + 1));
}

std::string start_of(KeyKind kind) { return std::string(1, static_cast<char>(kind)); }

}  // namespace

Task<Status> ChunkStore::open() {
    KDFS_CO_TRY(co_await read_meta());
    KDFS_CO_TRY(co_await slabs_->open());
    for (uint64_t i = 0; i < slabs_->count(); ++i) {
        allocator_->add_slab();
    }
    KDFS_CO_TRY(co_await replay());
    env_.fault_point("store.open.after_replay");
    KDFS_CO_TRY(co_await load_fallbacks());
    KDFS_CO_TRY(co_await load_records());
    env_.fault_point("store.open.before_settle");
    KDFS_CO_TRY(co_await settle());
    scope_.spawn(sync_loop());
    co_return Status();
}

// The entry of the store itself: u64 format, u64 bytes per slab, u64 durable point.
Task<Status> ChunkStore::read_meta() {
    auto meta = co_await kv_get(meta_key());
    if (!meta.ok()) {
        co_return std::move(meta).error();
    }
    uint64_t slab_bytes = options_.slab_bytes;
    if (*meta) {
        Reader reader(**meta);
        uint64_t format = reader.u64();
        slab_bytes = reader.u64();
        durable_seq_ = reader.u64();
        if (!reader.done() || format != kStoreFormat) {
            co_return Error(Errc::kWrongVersion,
                            "target " + std::to_string(options_.target.value) +
                                " was written by another version of kdfs-storage");
        }
    }
    if (slab_bytes == 0 || slab_bytes % (64 * kBlockBytes) != 0) {
        co_return Error(Errc::kInvalidArgument, "the slab size is not a multiple of 256 KiB");
    }
    last_seq_ = durable_seq_;
    slabs_ = std::make_unique<SlabSet>(disk_, slab_bytes);
    allocator_ = std::make_unique<ExtentAllocator>(slabs_->blocks_per_slab());
    co_return Status();
}

void ChunkStore::put_durable(KvBatch& batch) const {
    std::string value;
    Writer writer(value);
    writer.u64(kStoreFormat);
    writer.u64(slabs_->slab_bytes());
    writer.u64(durable_seq_);
    batch.put(meta_key(), std::move(value));
}

// Writes the blocks of changes beyond the durable point again, in the order of the changes.
Task<Status> ChunkStore::replay() {
    std::string from = start_of(KeyKind::kRedo);
    for (bool more = true; more;) {
        auto entries = co_await kv_scan(from, end_of(KeyKind::kRedo));
        if (!entries.ok()) {
            co_return std::move(entries).error();
        }
        for (KvEntry& entry : *entries) {
            from = entry.key + '\0';
            KDFS_CO_TRY(co_await replay_entry(std::move(entry)));
        }
        more = entries->size() == kScanPage;
    }
    co_return Status();
}

Task<Status> ChunkStore::replay_entry(KvEntry entry) {
    auto seq = decode_redo_key(entry.key);
    if (!seq.ok() || *seq <= durable_seq_) {
        co_return Status();
    }
    auto writes = decode_redo(entry.value);
    if (!writes.ok()) {
        // The record of the change will show whether its blocks are there.
        LogEvent(env_.log(), LogLevel::kError, "damaged redo entry")
            .with("target", options_.target)
            .with("change", *seq)
            .with("cause", writes.error().detail);
        co_return Status();
    }
    for (BlockWrite& write : *writes) {
        if (allocator_->exists(write.extent)) {
            KDFS_CO_TRY(co_await slabs_->write(write.extent, std::move(write.data), io_scope_));
        }
    }
    co_return Status();
}

Task<Status> ChunkStore::load_fallbacks() {
    std::string from = start_of(KeyKind::kFallback);
    for (bool more = true; more;) {
        auto entries = co_await kv_scan(from, end_of(KeyKind::kFallback));
        if (!entries.ok()) {
            co_return std::move(entries).error();
        }
        for (KvEntry& entry : *entries) {
            auto key = decode_key(entry.key);
            if (key.ok()) {
                // Keys of one chunk come in the order of their records.
                fallbacks_[*key].push_back(std::move(entry.value));
            }
            from = entry.key + '\0';
        }
        more = entries->size() == kScanPage;
    }
    co_return Status();
}

Task<Status> ChunkStore::load_records() {
    std::string from = start_of(KeyKind::kRecord);
    for (bool more = true; more;) {
        auto entries = co_await kv_scan(from, end_of(KeyKind::kRecord));
        if (!entries.ok()) {
            co_return std::move(entries).error();
        }
        for (KvEntry& entry : *entries) {
            from = entry.key + '\0';
            auto key = decode_key(entry.key);
            if (!key.ok()) {
                recovery_.erase(entry.key);
                continue;
            }
            KDFS_CO_TRY(co_await load_record(*key, std::move(entry.value)));
        }
        more = entries->size() == kScanPage;
    }
    co_return Status();
}

// The record in `value` if a crash has left it whole: decodable, with blocks that exist, and intact
// if it is beyond the durable point. kCorrupt if not.
Task<Result<RecordPtr>> ChunkStore::check_record(std::string value) {
    auto decoded = decode_record(value);
    if (!decoded.ok()) {
        co_return std::move(decoded).error();
    }
    last_seq_ = std::max(last_seq_, decoded->seq);
    auto record = std::make_shared<const ChunkRecord>(std::move(*decoded));
    for (const Extent& extent : record->extents(slabs_->blocks_per_slab())) {
        if (!allocator_->exists(extent)) {
            co_return Error(Errc::kCorrupt, "its record names blocks behind the last slab");
        }
    }
    if (record->seq <= durable_seq_) {
        co_return RecordPtr(record);
    }
    Status intact;
    // A read may fail once and then work; a record given up here is gone.
    for (int attempt = 0; attempt < kReadAttemptsMax; ++attempt) {
        BufferChain data;
        intact = co_await read_blocks(record, 0, record->blocks.size(), &data);
        if (intact.ok()) {
            co_return RecordPtr(record);
        }
    }
    co_return std::move(intact).error();
}

Task<Status> ChunkStore::load_record(ChunkKey key, std::string value) {
    std::vector<std::string> older;
    auto found = fallbacks_.find(key);
    if (found != fallbacks_.end()) {
        older = std::move(found->second);
    }
    chunks_ += 1;
    bool newest = true;
    bool never_synced = true;
    std::string cause;
    for (;;) {
        auto record = co_await check_record(value);
        if (record.ok()) {
            for (const Extent& extent : (*record)->extents(slabs_->blocks_per_slab())) {
                (void)allocator_->mark(extent);
            }
            if (!newest) {
                recovery_.put(record_key(key), value);
            }
            co_return Status();
        }
        if (record.error().code != Errc::kCorrupt) {
            co_return std::move(record).error();
        }
        cause = cause.empty() ? record.error().detail : cause;
        auto decoded = decode_record(value);
        never_synced = never_synced && decoded.ok() && decoded->seq > durable_seq_;
        if (older.empty()) {
            break;
        }
        value = std::move(older.back());
        older.pop_back();
        newest = false;
    }
    if (never_synced) {
        // It is as if the chunk had not been written.
        LogEvent(env_.log(), LogLevel::kDebug, "chunk that was never synced is incomplete: dropped")
            .with("target", options_.target)
            .with("chunk", to_string(key))
            .with("cause", cause);
        recovery_.erase(record_key(key));
        chunks_ -= 1;
        co_return Status();
    }
    damaged_.insert(key);
    LogEvent(env_.log(), LogLevel::kError, "damaged chunk")
        .with("target", options_.target)
        .with("chunk", to_string(key))
        .with("cause", cause);
    co_return Status();
}

// Makes what was found durable and forgets the rest. Blocks come first: the new durable point must
// not be on disk before what it speaks for.
Task<Status> ChunkStore::settle() {
    slabs_->mark_all_dirty();
    KDFS_CO_TRY(co_await slabs_->sync(io_scope_));
    durable_seq_ = last_seq_;
    recovery_.erase_range(start_of(KeyKind::kFallback), end_of(KeyKind::kFallback));
    recovery_.erase_range(start_of(KeyKind::kRedo), end_of(KeyKind::kRedo));
    put_durable(recovery_);
    KDFS_CO_TRY(kv_.apply(recovery_));
    env_.fault_point("store.open.in_settle");
    KDFS_CO_TRY(co_await kv_.sync());
    recovery_ = KvBatch();
    fallbacks_.clear();
    co_return Status();
}

}  // namespace kdfs::storage
