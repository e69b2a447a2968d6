#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/kv/kv_store.h"
#include "kdfs/proto/chunk.pb.h"
#include "kdfs/rt/disk.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"
#include "storage/chunk_record.h"
#include "storage/extent_allocator.h"
#include "storage/record_cache.h"
#include "storage/redo_entry.h"
#include "storage/slab_set.h"

#include <bitset>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::storage {

struct StoreOptions {
    TargetId target;
    // Most bytes of slabs; 0: what the disk has, less ChunkStore::kReserveBytes.
    uint64_t capacity_bytes = 0;
    // Of a new store; an existing one keeps its own.
    uint64_t slab_bytes = 256 * MiB;
    Duration sync_interval = std::chrono::seconds(2);
    uint64_t cache_bytes = 24 * MiB;
};

// One change of one chunk, as a member applies it. `data` has been checked against `sums`, whose
// blocks are cut at multiples of kBlockBytes of the chunk.
struct ChunkWrite {
    pb::WriteKind kind = pb::WRITE_DATA;
    uint64_t offset = 0;
    BufferChain data;
    std::vector<uint64_t> sums;
    ChunkVersion new_version;
    // Keep the data in a redo entry too, if that is of use: sync_change() will follow at once.
    bool redo = false;
    RecentWrite writer;               // all but WRITE_REPLACE
    std::vector<RecentWrite> recent;  // WRITE_REPLACE
};

class ChunkStore;

// A change whose record is made and whose space is taken, and which nobody sees. Commit it or let
// it go: its destructor gives the space back. Lives no longer than its store, and not while its
// data is being written.
class StagedWrite {
public:
    StagedWrite() = default;
    StagedWrite(StagedWrite&& other) noexcept { *this = std::move(other); }
    StagedWrite& operator=(StagedWrite&& other) noexcept;
    ~StagedWrite() { abort(); }
    void abort();

    ChunkVersion version() const { return next_ ? next_->version : ChunkVersion(); }
    uint64_t length() const { return next_ ? next_->length : 0; }
    // It has a redo entry: no sync of the slabs is needed to make it durable.
    bool has_redo() const { return !redo_.empty(); }

private:
    friend class ChunkStore;

    ChunkStore* store_ = nullptr;
    ChunkKey key_;
    RecordPtr base_;
    std::shared_ptr<ChunkRecord> next_;  // null: the chunk goes
    std::vector<Extent> fresh_;
    std::vector<BlockWrite> io_;
    std::vector<BlockWrite> redo_;
    bool plain_ = false;  // writes blocks and has no redo entry
};

struct ReadData {
    RecordPtr record;  // null: no such chunk
    BufferChain data;
    std::vector<uint64_t> sums;
};

struct StoreSpace {
    uint64_t total_bytes = 0;
    uint64_t free_bytes = 0;
    uint64_t chunks = 0;
};

// The chunks of one target: data in slab files, one record per chunk in `kv`. `env`, `disk` and
// `kv` outlive it; it is used on its loop. The caller runs one change of a chunk at a time, from
// find() to commit(); reads need no care.
//
// A change never overwrites: data goes to free blocks, then commit() switches the record. The
// switch survives the death of the process once flushed() has returned, a power cut once sync()
// has.
//
// Why a crash loses nothing that was synced. Changes are numbered; sync() makes all up to some
// number durable, the durable point, in blocks and records. A power cut keeps any prefix of the
// batches of `kv`, at least up to that point, and any part of unsynced blocks. So (1) the first
// change of a chunk after its record was taken into a sync puts that record beside the new one as a
// fallback and holds its blocks until a later sync has made a newer record durable: open() finds a
// record beyond the durable point whose blocks are not all there and goes back to the fallback. At
// most two fallbacks exist: one durable, one that a running sync is making durable. (2) A block
// that loses its last user waits in quarantine until every change made so far is durable, so that
// no record a crash can leave in place names a block that was used again, unless it would fall back
// anyway. (3) open() makes what it found durable before it forgets fallbacks, so a crash during
// recovery starts from the same state. A clone is a record with users of its own on the same
// blocks and needs no more rules. A removal keeps no fallback: the chunk is gone or the older
// record is intact, since its blocks wait in quarantine.
//
// Small changes that are synced one by one have their blocks in redo entries, in the batch of their
// record: sync_change() then leaves the slabs alone, and open() writes the blocks again for every
// entry beyond the durable point, in order. Only a full sync raises that point and ends entries, so
// no block of an entry is used again before the entry is gone. Such a record needs no fallback. A
// chunk has either kind of change between two full syncs, not both: a record with blocks that only
// the slabs have would take along in its fall what was synced before.
//
// Errors: kCorrupt for a chunk whose record or bytes are damaged (others are not affected; a
// WRITE_REPLACE or WRITE_REMOVE heals it), kNoSpace beyond the capacity, kIo after the disk or the
// key-value store failed: then failure() says why and nothing works until the store is reopened.
class ChunkStore {
public:
    static constexpr uint64_t kReserveBytes = 1 * GiB;
    // Changed chunks or quarantined bytes beyond which a sync starts at once.
    static constexpr size_t kDirtyChunksMax = 32768;
    static constexpr uint64_t kQuarantineBytesMax = 1 * GiB;
    // Of one redo entry, and of all until a sync starts at once.
    static constexpr uint64_t kRedoBytesMax = 32 * KiB;
    static constexpr uint64_t kRedoTotalBytesMax = 32 * MiB;
    static constexpr int kReadAttemptsMax = 4;
    static constexpr int kLoadAttemptsMax = 16;
    static constexpr uint64_t kScanPage = 512;
    // So many damaged chunks are named as errors in the log, the rest for debugging.
    static constexpr size_t kToldMax = 1024;

    ChunkStore(Env& env, Disk& disk, KvStore& kv, StoreOptions options);
    ~ChunkStore();

    // Recovers what is there, or makes an empty store. Before anything else.
    Task<Status> open();
    // After all calls have returned.
    Task<void> stop();

    // The chunk's committed record; null if there is none.
    Task<Result<RecordPtr>> find(ChunkKey key);
    // Makes the change on top of `base`, which find() gave, up to taking space.
    Task<Result<StagedWrite>> stage(ChunkKey key, RecordPtr base, ChunkWrite write);
    // Writes the staged data to its blocks.
    Task<Status> write_data(StagedWrite& staged);
    // Makes the change visible. An error is a failure of the store.
    Status commit(StagedWrite staged);
    // Shares all blocks of `from` with the chunk `to`, whose record (or null) is `base`.
    Task<Result<RecordPtr>> clone(RecordPtr from, ChunkKey to, RecordPtr base);
    // Completes when all commits so far survive the death of the process. Callers of one turn of
    // the loop share one flush.
    Task<Status> flushed();
    // Completes when all commits so far survive a power cut. Concurrent callers share.
    Task<Status> sync();
    // Completes when all commits of one chunk so far do.
    Task<Status> sync_change(ChunkKey key);
    // Completes when all removals so far do.
    Task<Status> sync_removals();
    // Starts bringing written data to the disk, ahead of a sync() that will need it.
    Task<Status> sync_data();

    // The whole blocks that hold [offset, offset + length), as far as the chunk goes, checked.
    // `offset` is a multiple of kBlockBytes.
    Task<Result<ReadData>> read(ChunkKey key, uint64_t offset, uint64_t length);
    // Chunks of a chain after `after`, in key order. A damaged one has version and digest 0.
    struct Listed {
        ChunkId chunk;
        ChunkVersion version;
        uint64_t length = 0;
        uint64_t digest = 0;
    };
    struct Page {
        std::vector<Listed> chunks;
        bool more = false;
    };
    struct Range {
        ChainId chain;
        std::optional<ChunkId> after;
        DataId only_data;  // 0: all
        uint64_t entries_max = kScanPage;
    };
    Task<Result<Page>> list(Range range);

    // What put_scrub_state() kept last, which survives the death of the process, and a power cut
    // after the next sync().
    Task<Result<std::optional<std::string>>> scrub_state();
    Status put_scrub_state(std::string state);

    Task<StoreSpace> space();
    const std::optional<Error>& failure() const { return failure_; }
    TargetId target() const { return options_.target; }
    // Free in the slabs there are; quarantined blocks count, since they come back within seconds.
    uint64_t free_slab_bytes() const;
    uint64_t last_seq() const { return last_seq_; }
    uint64_t durable_seq() const { return durable_seq_; }
    const ExtentAllocator& allocator() const { return *allocator_; }
    const std::set<ChunkKey>& damaged() const { return damaged_; }

private:
    friend class StagedWrite;
    // A chunk changed since the last sync took its record.
    struct Dirty {
        // Of the record to fall back to: the blocks that the newer one has no more, how many it
        // has in all, and at which places newer ones stand.
        std::vector<Extent> held;
        uint64_t fallback_blocks = 0;
        std::bitset<kPieceBytesMax / kBlockBytes> replaced;
        uint64_t fallback_seq = 0;  // of its key in kv; 0: it has none
        bool plain = false;         // has changes without redo entries
        bool redone = false;        // has changes with them
    };
    using DirtyMap = std::map<ChunkKey, Dirty>;

    // chunk_store_open.cc
    Task<Status> read_meta();
    Task<Status> replay();
    Task<Status> replay_entry(KvEntry entry);
    Task<Status> load_fallbacks();
    Task<Status> load_records();
    Task<Status> load_record(ChunkKey key, std::string value);
    Task<Result<RecordPtr>> check_record(std::string value);
    Task<Status> settle();

    // chunk_store_write.cc
    struct Build;
    Task<Status> build_data(Build& build);
    Task<Status> build_truncate(Build& build);
    void build_replace(Build& build);
    Task<Status> merge_block(Build& build, uint64_t block);
    Task<Status> place(Build& build);
    Task<Result<std::vector<Extent>>> take_space(uint64_t blocks);
    Task<Result<bool>> grow();
    Status apply_record(StagedWrite& staged);
    void hold_base(const StagedWrite& staged, KvBatch& batch);
    void put_redo(const StagedWrite& staged, KvBatch& batch);
    bool wants_sync() const;
    bool has_plain_changes(const ChunkKey& key) const;
    Task<Status> before_plain_change(ChunkKey key);

    Task<Result<std::optional<std::string>>> kv_get(std::string key);
    Task<Result<std::vector<KvEntry>>> kv_scan(std::string first, std::string beyond);
    Task<Status> read_blocks(RecordPtr record, uint64_t first, uint64_t count, BufferChain* out);
    // chunk_store_sync.cc
    Task<Status> sync_once();
    void after_sync(uint64_t durable, const DirtyMap& done);
    void put_durable(KvBatch& batch) const;
    Task<void> sync_loop();
    Error fail(Error cause);
    Error damaged_error(const ChunkKey& key, const std::string& what) const;
    uint64_t capacity_slabs(const DiskSpace& space) const;

    Env& env_;
    Disk& disk_;
    KvStore& kv_;
    StoreOptions options_;
    std::unique_ptr<SlabSet> slabs_;
    std::unique_ptr<ExtentAllocator> allocator_;
    RecordCache cache_;
    uint64_t last_seq_ = 0;
    uint64_t durable_seq_ = 0;
    uint64_t chunks_ = 0;
    DirtyMap dirty_;
    const DirtyMap* being_synced_ = nullptr;  // while a sync is under way
    // Redo entries in kv, oldest first: sequence numbers and bytes.
    std::deque<std::pair<uint64_t, uint64_t>> redo_;
    uint64_t redo_bytes_ = 0;
    std::set<ChunkKey> damaged_;
    // Chunks of which the log says that they are damaged, until they change.
    std::set<ChunkKey> told_damaged_;
    std::optional<Error> failure_;
    // Only during open().
    std::map<ChunkKey, std::vector<std::string>> fallbacks_;  // oldest first
    KvBatch recovery_;

    AsyncMutex grow_mutex_;
    // The bytes the disk said were free when it refused us a slab all the same: a quota, say.
    std::optional<uint64_t> refused_slab_at_;
    bool syncing_ = false;
    Event sync_done_;
    bool flush_posted_ = false;
    Event flush_done_;
    Event wake_sync_;   // something has changed
    Event sync_early_;  // too much has
    bool stopping_ = false;
    TaskScope io_scope_;
    TaskScope scope_;
};

}  // namespace kdfs::storage
