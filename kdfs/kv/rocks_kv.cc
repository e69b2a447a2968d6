#include "kdfs/kv/rocks_kv.h"

#include "kdfs/base/types.h"
#include "kdfs/kv/rocks_files.h"
#include "kdfs/kv/rocks_log_check.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/perf_level.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <utility>

namespace kdfs {
namespace {

rocksdb::Slice slice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }

std::shared_ptr<rocksdb::TableFactory> table_factory(const RocksKvOptions& from) {
    rocksdb::BlockBasedTableOptions table;
    rocksdb::LRUCacheOptions cache;
    cache.capacity = from.block_cache_bytes;
    cache.num_shard_bits = 2;  // few users; large shards so that a big block fits
    cache.high_pri_pool_ratio = 0.3;
    table.block_cache = rocksdb::NewLRUCache(cache);
    table.cache_index_and_filter_blocks = true;
    table.cache_index_and_filter_blocks_with_high_priority = true;
    table.pin_l0_filter_and_index_blocks_in_cache = true;
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
    table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
    table.format_version = 5;
    return std::shared_ptr<rocksdb::TableFactory>(rocksdb::NewBlockBasedTableFactory(table));
}

rocksdb::Options rocks_options(const RocksKvOptions& from) {
    rocksdb::Options to;
    to.create_if_missing = from.create_if_missing;
    to.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
    to.manual_wal_flush = true;
    to.max_total_wal_size = from.wal_bytes_max;
    to.write_buffer_size = from.write_buffer_bytes;
    to.max_write_buffer_number = from.write_buffers_max;
    to.allow_concurrent_memtable_write = false;
    to.memtable_prefix_bloom_size_ratio = 0.05;
    to.memtable_whole_key_filtering = true;
    to.compression = rocksdb::kLZ4Compression;
    to.level_compaction_dynamic_level_bytes = true;
    to.max_background_jobs = from.background_jobs_max;
    to.bytes_per_sync = MiB;
    to.max_open_files = -1;  // a table that is not open would make every read of it kWouldBlock
    to.keep_log_file_num = 2;
    to.max_log_file_size = MiB;
    to.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
    to.stats_dump_period_sec = 0;
    to.stats_persist_period_sec = 0;
    to.table_factory = table_factory(from);
    return to;
}

Error store_error(const std::string& directory, const rocksdb::Status& status) {
    std::string detail = "key-value store " + directory + ": " + status.ToString();
    if (status.IsCorruption()) {
        return {Errc::kCorrupt, detail + "; restore the directory from a good copy"};
    }
    if (status.IsNoSpace()) {
        return {Errc::kNoSpace, detail + "; free space on its disk, then start the daemon again"};
    }
    return {Errc::kIo, detail + "; check the disk, then start the daemon again"};
}

Error open_error(const std::string& directory, const rocksdb::Status& status) {
    std::string text = status.ToString();
    if (status.IsIOError() && text.find("lock") != std::string::npos) {
        return {Errc::kBusy,
                "key-value store " + directory +
                    ": another process has it open; stop that daemon first (" + text + ")"};
    }
    if (status.IsInvalidArgument() && text.find("does not exist") != std::string::npos) {
        return {Errc::kNotFound, "key-value store " + directory + " does not exist"};
    }
    return store_error(directory, status);
}

void add_change(rocksdb::WriteBatch& to, const KvBatch::Change& change) {
    // These fail only for keys beyond 4 GiB, and save points.
    switch (change.kind) {
        case KvBatch::Change::Kind::kPut:
            KDFS_CHECK(to.Put(change.key, change.value).ok());
            return;
        case KvBatch::Change::Kind::kErase:
            KDFS_CHECK(to.Delete(change.key).ok());
            return;
        case KvBatch::Change::Kind::kEraseRange:
            if (change.key < change.value) {
                KDFS_CHECK(to.DeleteRange(change.key, change.value).ok());
            }
            return;
    }
}

void add_marks(rocksdb::WriteBatch& to, const std::vector<std::string>& marks) {
    for (const std::string& mark : marks) {
        KDFS_CHECK(to.PutLogData(mark).ok());
    }
}

}  // namespace

struct RocksKv::Db {
    std::string directory;
    std::string identity;
    std::shared_ptr<RecordSizes> sizes = std::make_shared<RecordSizes>();
    std::unique_ptr<rocksdb::Env> files;
    std::unique_ptr<rocksdb::DB> rocks;

    Result<std::optional<std::string>> get(std::string_view key, rocksdb::ReadTier tier) {
        rocksdb::ReadOptions options;
        options.read_tier = tier;
        std::string value;
        rocksdb::Status status = rocks->Get(options, slice(key), &value);
        if (status.IsNotFound()) {
            return std::optional<std::string>();
        }
        if (status.IsIncomplete()) {
            return Error(Errc::kWouldBlock, "key-value store: the key is not in memory");
        }
        if (!status.ok()) {
            return store_error(directory, status);
        }
        return std::optional<std::string>(std::move(value));
    }

    Result<std::vector<KvEntry>> scan(std::string_view first,
                                      std::string_view beyond,
                                      uint64_t entries_max,
                                      rocksdb::ReadTier tier) {
        rocksdb::ReadOptions options;
        options.read_tier = tier;
        rocksdb::Slice upper = slice(beyond);
        if (!beyond.empty()) {
            options.iterate_upper_bound = &upper;
        }
        std::unique_ptr<rocksdb::Iterator> at(rocks->NewIterator(options));
        std::vector<KvEntry> out;
        if (entries_max == 0) {
            return out;
        }
        for (at->Seek(slice(first)); at->Valid(); at->Next()) {
            out.push_back({at->key().ToString(), at->value().ToString()});
            if (out.size() == entries_max) {
                break;  // before Next(), which may need a block that nobody asked for
            }
        }
        if (at->status().IsIncomplete()) {
            return Error(Errc::kWouldBlock, "key-value store: the range is not in memory");
        }
        if (!at->status().ok()) {
            return store_error(directory, at->status());
        }
        return out;
    }
};

Result<std::unique_ptr<RocksKv>> RocksKv::open(Offload& offload,
                                               std::string directory,
                                               RocksKvOptions options) {
    // This thread's reads and writes are not counted: each comparison of keys would add to a
    // thread-local counter that nobody reads.
    rocksdb::SetPerfLevel(rocksdb::PerfLevel::kDisable);
    auto db = std::make_shared<Db>();
    db->directory = std::move(directory);
    // Before RocksDB, which takes the end of what it can read for the end of what was written.
    KDFS_TRY(check_logs(db->directory));
    db->files = make_rocks_files(db->sizes);
    rocksdb::Options rocks_of_store = rocks_options(options);
    rocks_of_store.env = db->files.get();
    rocksdb::DB* rocks = nullptr;
    rocksdb::Status status = rocksdb::DB::Open(rocks_of_store, db->directory, &rocks);
    if (!status.ok()) {
        return open_error(db->directory, status);
    }
    db->rocks.reset(rocks);
    status = rocks->GetDbIdentity(db->identity);
    if (!status.ok()) {
        return store_error(db->directory, status);
    }
    std::unique_ptr<RocksKv> store(new RocksKv(offload, std::move(db)));
    store->durable_ = store->db_->sizes->newest();
    return store;
}

// A store that is closed in good order says of its last changes, too, that they are durable.
RocksKv::~RocksKv() {
    if (!failure_.ok()) {
        return;
    }
    std::vector<std::string> marks = new_marks();
    if (marks.empty()) {
        return;
    }
    rocksdb::WriteBatch batch;
    add_marks(batch, marks);
    bool written =
        db_->rocks->Write(rocksdb::WriteOptions(), &batch).ok() && db_->rocks->FlushWAL(false).ok();
    (void)written;  // Without it the log is as good, and only less well watched.
}

std::vector<std::string> RocksKv::new_marks() {
    std::vector<std::string> marks;
    for (const RecordSizes::File& file : durable_) {
        if (std::find(marked_.begin(), marked_.end(), file) == marked_.end()) {
            marks.push_back(durable_mark(db_->identity, file.name, file.bytes));
        }
    }
    marked_ = durable_;
    return marks;
}

Result<std::optional<std::string>> RocksKv::get(std::string_view key) {
    return db_->get(key, rocksdb::kBlockCacheTier);
}

Result<std::vector<KvEntry>> RocksKv::scan(std::string_view first,
                                           std::string_view beyond,
                                           uint64_t entries_max) {
    return db_->scan(first, beyond, entries_max, rocksdb::kBlockCacheTier);
}

Task<Status> RocksKv::load(std::string key) {
    Function<Status()> work = [db = db_, key = std::move(key)]() -> Status {
        KDFS_TRY(db->get(key, rocksdb::kReadAllTier));
        return {};
    };
    return offload_.run(std::move(work));
}

Task<Status> RocksKv::load_range(std::string first, std::string beyond, uint64_t entries_max) {
    Function<Status()> work =
        [db = db_, first = std::move(first), beyond = std::move(beyond), entries_max]() -> Status {
        KDFS_TRY(db->scan(first, beyond, entries_max, rocksdb::kReadAllTier));
        return {};
    };
    return offload_.run(std::move(work));
}

Status RocksKv::failed(Status status) {
    failure_ = status;
    return status;
}

Status RocksKv::apply(const KvBatch& batch) {
    KDFS_TRY(Status(failure_));
    rocksdb::WriteBatch rocks_batch;
    for (const KvBatch::Change& change : batch.changes()) {
        add_change(rocks_batch, change);
    }
    add_marks(rocks_batch, new_marks());
    rocksdb::WriteOptions options;
    options.no_slowdown = true;
    rocksdb::Status status = db_->rocks->Write(options, &rocks_batch);
    if (status.IsIncomplete()) {
        // Background work is so far behind that writers must wait. Rare; waiting here holds back
        // everybody, which is what lets it catch up.
        options.no_slowdown = false;
        status = db_->rocks->Write(options, &rocks_batch);
    }
    if (!status.ok()) {
        return failed(store_error(db_->directory, status));
    }
    ++applied_;
    return {};
}

Status RocksKv::flush() {
    KDFS_TRY(Status(failure_));
    if (flushed_ == applied_) {
        return {};
    }
    rocksdb::Status status = db_->rocks->FlushWAL(false);
    if (!status.ok()) {
        return failed(store_error(db_->directory, status));
    }
    flushed_ = applied_;
    return {};
}

Task<Status> RocksKv::sync() {
    uint64_t wanted = applied_;
    while (synced_ < wanted) {
        if (syncing_) {
            co_await sync_done_.wait();
            continue;
        }
        KDFS_CO_TRY(flush());
        uint64_t upto = flushed_;
        std::vector<RecordSizes::File> sizes = db_->sizes->newest();
        Function<Status()> work = [db = db_]() -> Status {
            rocksdb::Status status = db->rocks->SyncWAL();
            if (!status.ok()) {
                return store_error(db->directory, status);
            }
            return {};
        };
        syncing_ = true;
        Status status = co_await offload_.run(std::move(work));
        syncing_ = false;
        sync_done_.pulse();
        if (!status.ok()) {
            co_return failed(std::move(status));
        }
        synced_ = upto;
        durable_ = std::move(sizes);
    }
    co_return Status(failure_);
}

}  // namespace kdfs
