// Staging and committing changes. See chunk_store.h for the rules.

#include "kdfs/base/checksum.h"
#include "kdfs/base/mutant.h"
#include "storage/chunk_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kdfs::storage {

// A change while it is made. Lives in the frame of stage().
struct ChunkStore::Build {
    // New content of `count` blocks from `first` on. Only the chunk's last block may be short.
    struct Segment {
        uint64_t first = 0;
        uint64_t count = 0;
        BufferChain data;
    };

    ChunkKey key;
    RecordPtr base;
    ChunkWrite write;
    std::shared_ptr<ChunkRecord> next;
    std::vector<Segment> segments;  // in block order
    StagedWrite* staged = nullptr;

    uint64_t old_length() const { return base ? base->length : 0; }
    uint64_t write_end() const { return write.offset + write.data.size(); }
    // Gives the record its new length; blocks that are new are holes.
    void set_length(uint64_t length) {
        size_t before = next->blocks.size();
        next->length = length;
        next->blocks.resize(blocks_of(length), kHole);
        next->sums.resize(blocks_of(length), zeros_checksum(kBlockBytes));
        if (next->blocks.size() > before) {
            size_t last = next->blocks.size() - 1;
            next->sums[last] = zeros_checksum(next->bytes_of_block(last));
        }
    }
    // Whether the write gives every byte that block `index` will have.
    bool covers(uint64_t index) const {
        uint64_t first = index * kBlockBytes;
        return write.offset <= first && write_end() >= first + next->bytes_of_block(index);
    }
};

Task<Result<StagedWrite>> ChunkStore::stage(ChunkKey key, RecordPtr base, ChunkWrite write) {
    if (failure_) {
        co_return *failure_;
    }
    StagedWrite staged;
    staged.key_ = key;
    staged.base_ = base;
    staged.store_ = this;
    if (write.kind == pb::WRITE_REMOVE) {
        co_return std::move(staged);
    }
    Build build;
    build.key = key;
    build.base = std::move(base);
    build.write = std::move(write);
    build.staged = &staged;
    build.next = build.base && build.write.kind != pb::WRITE_REPLACE
                     ? std::make_shared<ChunkRecord>(*build.base)
                     : std::make_shared<ChunkRecord>();
    build.next->version = build.write.new_version;
    if (build.write.kind == pb::WRITE_REPLACE) {
        build_replace(build);
    } else {
        build.next->remember(build.write.writer);
        if (build.write.kind == pb::WRITE_TRUNCATE) {
            KDFS_CO_TRY(co_await build_truncate(build));
        } else {
            KDFS_CO_TRY(co_await build_data(build));
        }
    }
    KDFS_CO_TRY(co_await place(build));
    staged.next_ = std::move(build.next);
    if (staged.io_.empty()) {
        co_return std::move(staged);
    }
    if (build.write.redo && !has_plain_changes(key)) {
        staged.redo_ = staged.io_;
        co_return std::move(staged);
    }
    staged.plain_ = true;
    KDFS_CO_TRY(co_await before_plain_change(key));
    co_return std::move(staged);
}

void ChunkStore::build_replace(Build& build) {
    build.next->recent = std::move(build.write.recent);
    build.set_length(build.write.data.size());
    build.next->sums = std::move(build.write.sums);
    if (!build.write.data.empty()) {
        build.segments.push_back({0, build.next->blocks.size(), std::move(build.write.data)});
    }
}

Task<Status> ChunkStore::build_data(Build& build) {
    uint64_t old_length = build.old_length();
    uint64_t first = build.write.offset / kBlockBytes;
    uint64_t last = (build.write_end() - 1) / kBlockBytes;
    build.set_length(std::max(old_length, build.write_end()));
    if (old_length % kBlockBytes != 0 && old_length / kBlockBytes < first) {
        KDFS_CO_TRY(co_await merge_block(build, old_length / kBlockBytes));
    }
    uint64_t direct = first;
    if (!build.covers(first)) {
        KDFS_CO_TRY(co_await merge_block(build, first));
        direct = first + 1;
    }
    bool merge_last = last >= direct && !build.covers(last);
    uint64_t direct_end = merge_last ? last : last + 1;
    if (direct < direct_end) {
        uint64_t from = direct * kBlockBytes - build.write.offset;
        uint64_t to = std::min(direct_end * kBlockBytes, build.write_end()) - build.write.offset;
        Build::Segment segment;
        segment.first = direct;
        segment.count = direct_end - direct;
        segment.data = build.write.data.slice(from, to - from);
        build.segments.push_back(std::move(segment));
        for (uint64_t i = direct; i < direct_end; ++i) {
            build.next->sums[i] = build.write.sums[i - first];
        }
    }
    if (merge_last) {
        KDFS_CO_TRY(co_await merge_block(build, last));
    }
    co_return Status();
}

Task<Status> ChunkStore::build_truncate(Build& build) {
    uint64_t old_length = build.old_length();
    uint64_t length = build.write.offset;
    build.set_length(length);
    uint64_t cut = std::min(length, old_length);
    if (cut % kBlockBytes == 0 || length == old_length) {
        co_return Status();
    }
    uint64_t block = cut / kBlockBytes;
    if (length > old_length) {
        co_return co_await merge_block(build, block);
    }
    // The bytes on disk stay; only fewer of them count.
    if (build.base->blocks[block] == kHole) {
        build.next->sums[block] = zeros_checksum(build.next->bytes_of_block(block));
        co_return Status();
    }
    BufferChain old;
    Status read = co_await read_blocks(build.base, block, 1, &old);
    if (!read.ok()) {
        co_return damaged_error(build.key, read.error().detail);
    }
    uint64_t kept = build.next->bytes_of_block(block);
    build.next->sums[block] = checksum(old.pieces().front().span().subspan(0, kept));
    co_return Status();
}

// Makes the new content of a block of which the write gives only a part, or nothing but a tail of
// zeros because the chunk grows behind it.
Task<Status> ChunkStore::merge_block(Build& build, uint64_t block) {
    uint64_t start = block * kBlockBytes;
    uint64_t bytes = build.next->bytes_of_block(block);
    uint64_t from = std::clamp(build.write.offset, start, start + bytes);
    uint64_t to = std::clamp(build.write_end(), start, start + bytes);
    bool written = build.write.kind == pb::WRITE_DATA && from < to;
    bool has_old = build.base && start < build.base->length && build.base->blocks[block] != kHole;
    if (!written && !has_old) {
        build.next->sums[block] = zeros_checksum(bytes);
        co_return Status();
    }
    Buffer merged = Buffer::zeros(bytes);
    if (has_old) {
        BufferChain old;
        Status read = co_await read_blocks(build.base, block, 1, &old);
        if (!read.ok()) {
            co_return damaged_error(build.key, read.error().detail);
        }
        const Buffer& piece = old.pieces().front();
        std::memcpy(merged.mutable_data(), piece.data(), std::min<uint64_t>(piece.size(), bytes));
    }
    if (written) {
        uint64_t at = from - start;
        BufferChain part = build.write.data.slice(from - build.write.offset, to - from);
        for (const Buffer& piece : part.pieces()) {
            std::memcpy(merged.mutable_data() + at, piece.data(), piece.size());
            at += piece.size();
        }
    }
    build.next->sums[block] = checksum(merged.span());
    Build::Segment segment;
    segment.first = block;
    segment.count = 1;
    segment.data = BufferChain(std::move(merged));
    build.segments.push_back(std::move(segment));
    co_return Status();
}

// Takes space for the segments and pairs it with their data.
Task<Status> ChunkStore::place(Build& build) {
    uint64_t blocks = 0;
    for (const Build::Segment& segment : build.segments) {
        blocks += segment.count;
    }
    if (blocks == 0) {
        co_return Status();
    }
    auto space = co_await take_space(blocks);
    if (!space.ok()) {
        co_return std::move(space).error();
    }
    StagedWrite& staged = *build.staged;
    staged.fresh_ = std::move(*space);
    auto extent = staged.fresh_.begin();
    uint64_t used = 0;  // of *extent
    for (const Build::Segment& segment : build.segments) {
        for (uint64_t done = 0; done < segment.count;) {
            if (used == extent->count) {
                ++extent;
                used = 0;
            }
            uint64_t count = std::min(segment.count - done, extent->count - used);
            uint64_t offset = done * kBlockBytes;
            uint64_t bytes = std::min(count * kBlockBytes, segment.data.size() - offset);
            if (used == 0) {
                staged.io_.emplace_back();
                staged.io_.back().extent = *extent;
            }
            staged.io_.back().data.append(segment.data.slice(offset, bytes));
            for (uint64_t i = 0; i < count; ++i) {
                build.next->blocks[segment.first + done + i] = extent->first + used + i;
            }
            used += count;
            done += count;
        }
    }
    co_return Status();
}

Task<Result<std::vector<Extent>>> ChunkStore::take_space(uint64_t blocks) {
    // Once for the space there is, and twice more after syncs that empty the quarantine: the first
    // may release only what was freed before it began.
    constexpr int kRounds = 3;
    for (int round = 0; round < kRounds; ++round) {
        for (;;) {
            if (blocks > allocator_->blocks_per_slab()) {
                if (allocator_->free_blocks() >= blocks) {
                    break;
                }
            } else if (auto run = allocator_->allocate_run(blocks)) {
                co_return std::vector<Extent>(1, *run);
            }
            auto grown = co_await grow();
            if (!grown.ok()) {
                co_return std::move(grown).error();
            }
            if (!*grown) {
                break;
            }
        }
        std::vector<Extent> pieces = allocator_->allocate_pieces(blocks);
        if (!pieces.empty()) {
            co_return pieces;
        }
        if (allocator_->quarantined_blocks() == 0 && dirty_.empty()) {
            break;
        }
        KDFS_CO_TRY(co_await sync());
    }
    co_return Error(Errc::kNoSpace,
                    "target " + std::to_string(options_.target.value) +
                        " is full; remove files or add targets");
}

// One slab more; false if there is no room for one. Callers share.
Task<Result<bool>> ChunkStore::grow() {
    uint64_t slabs = allocator_->slabs();
    SemaphoreHold hold = co_await grow_mutex_.lock();
    if (allocator_->slabs() != slabs) {
        co_return true;
    }
    auto space = co_await disk_.space();
    if (!space.ok()) {
        co_return std::move(space).error();
    }
    if (capacity_slabs(*space) <= slabs) {
        co_return false;
    }
    Status grown = co_await slabs_->grow();
    if (!grown.ok()) {
        if (grown.error().code == Errc::kNoSpace) {
            refused_slab_at_ = space->free_bytes;
            co_return false;
        }
        co_return std::move(grown).error();
    }
    refused_slab_at_.reset();
    allocator_->add_slab();
    co_return true;
}

Task<Status> ChunkStore::write_data(StagedWrite& staged) {
    for (BlockWrite& io : staged.io_) {
        Status written = co_await slabs_->write(io.extent, std::move(io.data), io_scope_);
        if (!written.ok()) {
            co_return fail(written.error());
        }
    }
    staged.io_.clear();
    co_return Status();
}

Status ChunkStore::commit(StagedWrite staged) {
    if (failure_) {
        return *failure_;
    }
    KDFS_CHECK(staged.store_ == this && staged.io_.empty());
    // From here on the blocks belong to the record.
    staged.store_ = nullptr;
    return apply_record(staged);
}

namespace {

// Collects blocks into runs.
class Runs {
public:
    explicit Runs(uint64_t blocks_per_slab) : blocks_per_slab_(blocks_per_slab) {}
    void add(BlockNumber block) {
        if (block == kHole) {
            return;
        }
        if (!runs_.empty() && runs_.back().first + runs_.back().count == block &&
            block % blocks_per_slab_ != 0) {
            runs_.back().count += 1;
        } else {
            runs_.push_back(Extent{block, 1});
        }
    }
    const std::vector<Extent>& runs() const { return runs_; }

private:
    uint64_t blocks_per_slab_;
    std::vector<Extent> runs_;
};

bool same_at(const ChunkRecord* a, const ChunkRecord* b, size_t index) {
    return a != nullptr && b != nullptr && index < a->blocks.size() && index < b->blocks.size() &&
           a->blocks[index] == b->blocks[index];
}

}  // namespace

Task<Result<RecordPtr>> ChunkStore::clone(RecordPtr from, ChunkKey to, RecordPtr base) {
    KDFS_CO_TRY(co_await before_plain_change(to));
    if (failure_) {
        co_return *failure_;
    }
    auto next = std::make_shared<ChunkRecord>(*from);
    next->recent.clear();
    next->version =
        base ? ChunkVersion(std::max(base->version.value, from->version.value) + 1) : from->version;
    Runs gained(slabs_->blocks_per_slab());
    for (size_t i = 0; i < from->blocks.size(); ++i) {
        // What `to` has already at this place it keeps.
        if (!same_at(from.get(), base.get(), i)) {
            gained.add(from->blocks[i]);
        }
    }
    for (const Extent& extent : gained.runs()) {
        allocator_->ref(extent);
    }
    StagedWrite staged;
    staged.key_ = to;
    staged.base_ = std::move(base);
    staged.next_ = next;
    staged.plain_ = true;
    KDFS_CO_TRY(apply_record(staged));
    co_return RecordPtr(next);
}

// Settles what becomes of the blocks that the new record (or none) has no more: those of the
// record to fall back to are held for it, others have lost a user.
void ChunkStore::hold_base(const StagedWrite& staged, KvBatch& batch) {
    auto [place, first_change] = dirty_.try_emplace(staged.key_);
    Dirty& dirty = place->second;
    dirty.plain = dirty.plain || staged.plain_;
    dirty.redone = dirty.redone || staged.has_redo();
    const ChunkRecord* base = staged.base_.get();
    const ChunkRecord* next = staged.next_.get();
    if (base == nullptr) {
        return;
    }
    if (first_change && !staged.has_redo()) {
        dirty.fallback_blocks = base->blocks.size();
        if (next != nullptr && !mutant("keep_no_fallback")) {
            dirty.fallback_seq = base->seq;
            batch.put(fallback_key(staged.key_, base->seq), encode_record(*base));
        }
    }
    Runs held(slabs_->blocks_per_slab());
    Runs lost(slabs_->blocks_per_slab());
    for (size_t i = 0; i < base->blocks.size(); ++i) {
        if (same_at(base, next, i)) {
            continue;
        }
        bool of_fallback =
            i < dirty.fallback_blocks && !dirty.replaced[i] && !mutant("reuse_freed_blocks");
        (of_fallback ? held : lost).add(base->blocks[i]);
        dirty.replaced[i] = true;
    }
    dirty.held.insert(dirty.held.end(), held.runs().begin(), held.runs().end());
    for (const Extent& extent : lost.runs()) {
        allocator_->unref(extent, last_seq_);
    }
}

void ChunkStore::put_redo(const StagedWrite& staged, KvBatch& batch) {
    std::string entry = encode_redo(staged.redo_);
    redo_.emplace_back(last_seq_, entry.size());
    redo_bytes_ += entry.size();
    batch.put(redo_key(last_seq_), std::move(entry));
}

bool ChunkStore::wants_sync() const {
    return dirty_.size() > kDirtyChunksMax || redo_bytes_ > kRedoTotalBytesMax ||
           allocator_->quarantined_blocks() > kQuarantineBytesMax / kBlockBytes;
}

Status ChunkStore::apply_record(StagedWrite& staged) {
    KvBatch batch;
    last_seq_ += 1;
    bool existed = staged.base_ != nullptr || damaged_.erase(staged.key_) != 0;
    told_damaged_.erase(staged.key_);
    hold_base(staged, batch);
    if (mutant("reuse_freed_blocks")) {
        allocator_->release(UINT64_MAX);
    }
    if (staged.has_redo()) {
        put_redo(staged, batch);
    }
    if (staged.next_) {
        staged.next_->seq = last_seq_;
        batch.put(record_key(staged.key_), encode_record(*staged.next_));
    } else {
        batch.erase(record_key(staged.key_));
    }
    chunks_ += staged.next_ ? 1 : 0;
    chunks_ -= existed ? 1 : 0;
    cache_.put(staged.key_, std::move(staged.next_));
    Status applied = kv_.apply(batch);
    if (!applied.ok()) {
        return fail(applied.error());
    }
    wake_sync_.set();
    if (wants_sync()) {
        sync_early_.set();
    }
    return {};
}

}  // namespace kdfs::storage
