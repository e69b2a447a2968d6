#pragma once

#include "kdfs/kv/kv_store.h"
#include "kdfs/kv/rocks_files.h"
#include "kdfs/rt/offload.h"
#include "kdfs/rt/sync.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kdfs {

// What a store may use. Memory in all: about block_cache_bytes + write_buffers_max *
// write_buffer_bytes.
struct RocksKvOptions {
    // Data, index and filter blocks together.
    uint64_t block_cache_bytes = 64 * MiB;
    uint64_t write_buffer_bytes = 16 * MiB;
    int write_buffers_max = 3;
    // Logs beyond this make the oldest write buffer go to a table.
    uint64_t wal_bytes_max = 64 * MiB;
    int background_jobs_max = 2;
    bool create_if_missing = true;
};

// The KvStore on RocksDB, in a directory of its own. Reads on the loop look at memory only (write
// buffers and block cache); load() reads from the disk on the offload pool. apply() writes to the
// log's buffer; it blocks the loop only while RocksDB stalls writers, that is when its background
// work is far behind. After an error of the disk the store takes no more batches: close it and open
// it again. Used on one loop; destroyed when no load() or sync() runs.
class RocksKv final : public KvStore {
public:
    // Blocks. kBusy if another process has the directory open, kCorrupt if it cannot be read or its
    // log lacks what was synced (see rocks_log_check.h), kNotFound if there is none and it is not
    // to be created, kIo otherwise; the message names the directory. After a power cut the state is
    // that of a prefix of the batches that includes all that were synced. `offload` outlives the
    // store.
    static Result<std::unique_ptr<RocksKv>> open(Offload& offload,
                                                 std::string directory,
                                                 RocksKvOptions options = {});
    ~RocksKv() override;

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
    struct Db;
    RocksKv(Offload& offload, std::shared_ptr<Db> db) : offload_(offload), db_(std::move(db)) {}
    Status failed(Status status);
    // What is new to say in the log; see rocks_log_check.h.
    std::vector<std::string> new_marks();

    Offload& offload_;
    // Shared with the calls on the offload pool, which may outlive a destroyed coroutine.
    std::shared_ptr<Db> db_;
    uint64_t applied_ = 0;
    uint64_t flushed_ = 0;
    uint64_t synced_ = 0;
    // What is on stable storage of files that consist of records, and what of it the log says.
    std::vector<RecordSizes::File> durable_;
    std::vector<RecordSizes::File> marked_;
    bool syncing_ = false;
    Event sync_done_;
    Status failure_;
};

}  // namespace kdfs
