#include "storage/chunk_store.h"

#include "kdfs/base/checksum.h"
#include "kdfs/base/codec.h"
#include "kdfs/base/mutant.h"

#include <algorithm>
#include <utility>

namespace kdfs::storage {

StagedWrite& StagedWrite::operator=(StagedWrite&& other) noexcept {
    if (this != &other) {
        abort();
        store_ = std::exchange(other.store_, nullptr);
        key_ = other.key_;
        base_ = std::move(other.base_);
        next_ = std::move(other.next_);
        fresh_ = std::move(other.fresh_);
        io_ = std::move(other.io_);
        redo_ = std::move(other.redo_);
        plain_ = other.plain_;
        other.fresh_.clear();
    }
    return *this;
}

void StagedWrite::abort() {
    if (store_ != nullptr) {
        for (const Extent& extent : fresh_) {
            store_->allocator_->free_now(extent);
        }
        fresh_.clear();
        store_ = nullptr;
    }
}

ChunkStore::ChunkStore(Env& env, Disk& disk, KvStore& kv, StoreOptions options)
    : env_(env),
      disk_(disk),
      kv_(kv),
      options_(options),
      cache_(options.cache_bytes),
      io_scope_(env.scheduler()),
      scope_(env.scheduler()) {}

ChunkStore::~ChunkStore() = default;

Task<void> ChunkStore::stop() {
    stopping_ = true;
    wake_sync_.set();
    sync_early_.set();
    co_await scope_.close();
    co_await io_scope_.close();
}

Error ChunkStore::fail(Error cause) {
    if (!failure_) {
        failure_ =
            Error(Errc::kIo,
                  "target " + std::to_string(options_.target.value) + " stopped after an error (" +
                      cause.to_string() + "); check the disk, then restart its daemon");
        LogEvent(env_.log(), LogLevel::kError, "target failed")
            .with("target", options_.target)
            .with("cause", cause.to_string());
    }
    return *failure_;
}

Error ChunkStore::damaged_error(const ChunkKey& key, const std::string& what) const {
    return {Errc::kCorrupt,
            "target " + std::to_string(options_.target.value) + ", " + to_string(key) + ": " +
                what + "; another replica has it, resync restores it here"};
}

Task<Result<std::optional<std::string>>> ChunkStore::kv_get(std::string key) {
    for (int attempt = 0; attempt < kLoadAttemptsMax; ++attempt) {
        auto value = kv_.get(key);
        if (value.ok() || value.error().code != Errc::kWouldBlock) {
            co_return value;
        }
        KDFS_CO_TRY(co_await kv_.load(key));
    }
    co_return Error(Errc::kBusy, "a record leaves memory as soon as it is loaded; try again");
}

Task<Result<std::vector<KvEntry>>> ChunkStore::kv_scan(std::string first, std::string beyond) {
    for (int attempt = 0; attempt < kLoadAttemptsMax; ++attempt) {
        auto entries = kv_.scan(first, beyond, kScanPage);
        if (entries.ok() || entries.error().code != Errc::kWouldBlock) {
            co_return entries;
        }
        KDFS_CO_TRY(co_await kv_.load_range(first, beyond, kScanPage));
    }
    co_return Error(Errc::kBusy, "records leave memory as soon as they are loaded; try again");
}

Task<Result<RecordPtr>> ChunkStore::find(ChunkKey key) {
    if (failure_) {
        co_return *failure_;
    }
    if (damaged_.contains(key)) {
        co_return damaged_error(key, "its record or unsynced data is damaged");
    }
    if (auto known = cache_.get(key)) {
        co_return *known;
    }
    uint64_t seq = last_seq_;
    auto value = co_await kv_get(record_key(key));
    if (!value.ok()) {
        co_return std::move(value).error();
    }
    // A commit during the wait is newer than what was read, unless the cache has let it go again.
    if (auto known = cache_.get(key)) {
        co_return *known;
    }
    RecordPtr record;
    if (*value) {
        auto decoded = decode_record(**value);
        if (!decoded.ok()) {
            co_return damaged_error(key, decoded.error().detail);
        }
        record = std::make_shared<const ChunkRecord>(std::move(*decoded));
    }
    if (seq == last_seq_) {
        cache_.put(key, record);
    }
    co_return record;
}

Task<Status> ChunkStore::read_blocks(RecordPtr record,
                                     uint64_t first,
                                     uint64_t count,
                                     BufferChain* out) {
    uint64_t per_slab = slabs_->blocks_per_slab();
    uint64_t at = first;
    while (at < first + count) {
        BlockNumber block = record->blocks[at];
        uint64_t end = at + 1;
        while (end < first + count && (block == kHole ? record->blocks[end] == kHole
                                                      : record->blocks[end] == block + (end - at) &&
                                                            record->blocks[end] % per_slab != 0)) {
            ++end;
        }
        uint64_t bytes = std::min(end * kBlockBytes, record->length) - at * kBlockBytes;
        if (block == kHole) {
            out->append(Buffer::zeros(bytes));
            at = end;
            continue;
        }
        Extent extent{block, end - at};
        auto read = co_await slabs_->read(extent);
        if (!read.ok()) {
            // Of no more use than wrong bytes, and healed in the same way.
            co_return Error(Errc::kCorrupt, "cannot be read: " + read.error().detail);
        }
        for (uint64_t i = at; i < end; ++i) {
            auto bytes_of = read->span().subspan((i - at) * kBlockBytes, record->bytes_of_block(i));
            if (checksum(bytes_of) != record->sums[i] && !mutant("trust_the_disk")) {
                co_return Error(Errc::kCorrupt,
                                "block " + std::to_string(i) + " has a wrong checksum");
            }
        }
        out->append(read->slice(0, bytes));
        at = end;
    }
    co_return Status();
}

Task<Result<ReadData>> ChunkStore::read(ChunkKey key, uint64_t offset, uint64_t length) {
    KDFS_CHECK(offset % kBlockBytes == 0);
    Error last;
    for (int attempt = 0; attempt < kReadAttemptsMax; ++attempt) {
        auto record = co_await find(key);
        if (!record.ok()) {
            co_return std::move(record).error();
        }
        ReadData out;
        out.record = *record;
        if (!*record || offset >= (*record)->length || length == 0) {
            co_return out;
        }
        uint64_t end = length > (*record)->length - offset ? (*record)->length : offset + length;
        uint64_t first = offset / kBlockBytes;
        uint64_t count = blocks_of(end) - first;
        Status read = co_await read_blocks(*record, first, count, &out.data);
        if (read.ok()) {
            auto sums = (*record)->sums.begin() + static_cast<ptrdiff_t>(first);
            out.sums.assign(sums, sums + static_cast<ptrdiff_t>(count));
            co_return out;
        }
        last = read.error();
        // The blocks may have been freed and used again while they were read: then the record is
        // another one by now.
        auto now = co_await find(key);
        if (now.ok() && *now && (*now)->seq == (*record)->seq) {
            break;
        }
    }
    bool is_new = told_damaged_.size() < kToldMax && told_damaged_.insert(key).second;
    LogEvent(env_.log(), is_new ? LogLevel::kError : LogLevel::kDebug, "damaged chunk")
        .with("target", options_.target)
        .with("chunk", to_string(key))
        .with("cause", last.detail);
    co_return damaged_error(key, last.detail);
}

Task<Result<ChunkStore::Page>> ChunkStore::list(Range range) {
    if (failure_) {
        co_return *failure_;
    }
    ChunkKey first;
    first.chain = range.chain;
    first.chunk.data = range.only_data;
    std::string from = record_key(first);
    if (range.after) {
        ChunkKey after;
        after.chain = range.chain;
        after.chunk = *range.after;
        from = std::max(from, record_key(after) + '\0');
    }
    ChunkKey end;
    end.chain = range.only_data ? range.chain : ChainId(range.chain.value + 1);
    end.chunk.data = range.only_data ? DataId(range.only_data.value + 1) : DataId();
    std::string beyond = record_key(end);

    Page page;
    uint64_t wanted = std::min(range.entries_max, kScanPage);
    auto entries = co_await kv_scan(std::move(from), std::move(beyond));
    if (!entries.ok()) {
        co_return std::move(entries).error();
    }
    for (const KvEntry& entry : *entries) {
        if (page.chunks.size() == wanted) {
            page.more = true;
            break;
        }
        auto key = decode_key(entry.key);
        if (!key.ok()) {
            continue;
        }
        Listed listed;
        listed.chunk = key->chunk;
        auto record = decode_record(entry.value);
        if (record.ok() && !damaged_.contains(*key)) {
            listed.version = record->version;
            listed.length = record->length;
            listed.digest = record->digest();
        }
        page.chunks.push_back(listed);
    }
    page.more = page.more || entries->size() == kScanPage;
    co_return page;
}

Task<Status> ChunkStore::flushed() {
    if (failure_) {
        co_return *failure_;
    }
    if (!flush_posted_) {
        flush_posted_ = true;
        env_.scheduler().post([this] {
            flush_posted_ = false;
            Status flushed = kv_.flush();
            if (!flushed.ok()) {
                (void)fail(flushed.error());
            }
            flush_done_.pulse();
        });
    }
    co_await flush_done_.wait();
    if (failure_) {
        co_return *failure_;
    }
    co_return Status();
}

uint64_t ChunkStore::capacity_slabs(const DiskSpace& space) const {
    uint64_t slab_bytes = slabs_->slab_bytes();
    uint64_t reserve = options_.capacity_bytes == 0 ? kReserveBytes : 0;
    uint64_t growable = space.free_bytes > reserve ? (space.free_bytes - reserve) / slab_bytes : 0;
    uint64_t slabs = slabs_->count() + growable;
    return options_.capacity_bytes == 0 ? slabs
                                        : std::min(slabs, options_.capacity_bytes / slab_bytes);
}

namespace {

std::string scrub_key() { return std::string(1, static_cast<char>(KeyKind::kScrub)); }

}  // namespace

Task<Result<std::optional<std::string>>> ChunkStore::scrub_state() {
    co_return co_await kv_get(scrub_key());
}

Status ChunkStore::put_scrub_state(std::string state) {
    if (failure_) {
        return *failure_;
    }
    KvBatch batch;
    batch.put(scrub_key(), std::move(state));
    KDFS_TRY(kv_.apply(batch));
    return kv_.flush();
}

Task<StoreSpace> ChunkStore::space() {
    StoreSpace out;
    out.chunks = chunks_;
    auto disk = co_await disk_.space();
    DiskSpace space = disk.ok() ? *disk : DiskSpace();
    bool refused = refused_slab_at_ && space.free_bytes <= *refused_slab_at_;
    uint64_t slabs = refused ? slabs_->count() : std::max(capacity_slabs(space), slabs_->count());
    out.total_bytes = slabs * slabs_->slab_bytes();
    out.free_bytes = (slabs - slabs_->count()) * slabs_->slab_bytes() + free_slab_bytes();
    co_return out;
}

uint64_t ChunkStore::free_slab_bytes() const {
    return (allocator_->free_blocks() + allocator_->quarantined_blocks()) * kBlockBytes;
}

}  // namespace kdfs::storage
