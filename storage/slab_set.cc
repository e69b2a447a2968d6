#include "storage/slab_set.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

namespace kdfs::storage {
namespace {

std::string slab_name(uint64_t number) {
    std::array<char, 32> name{};
    std::snprintf(name.data(), name.size(), "slab.%06llu", static_cast<unsigned long long>(number));
    return name.data();
}

bool is_slab(const std::string& name) { return name.rfind("slab.", 0) == 0; }

// A short last block is written as a whole one, so that the page cache need not read the rest.
void pad_to_block(BufferChain& data) {
    static const Buffer zeros = Buffer::zeros(kBlockBytes);
    uint64_t over = data.size() % kBlockBytes;
    if (over != 0) {
        data.append(zeros.slice(0, kBlockBytes - over));
    }
}

}  // namespace

Task<Status> SlabSet::open() {
    auto names = co_await disk_.list();
    if (!names.ok()) {
        co_return std::move(names).error();
    }
    uint64_t slabs = static_cast<uint64_t>(std::count_if(names->begin(), names->end(), is_slab));
    for (uint64_t number = 0; number < slabs; ++number) {
        auto file = co_await disk_.open(slab_name(number));
        if (!file.ok()) {
            Errc code = file.error().code == Errc::kNotFound ? Errc::kCorrupt : file.error().code;
            co_return Error(code, "slab files are missing in between: " + file.error().detail);
        }
        if ((*file)->size() < slab_bytes_) {
            KDFS_CO_TRY(co_await (*file)->allocate(slab_bytes_));
        }
        slabs_.emplace_back().file = std::move(*file);
    }
    co_return Status();
}

Task<Status> SlabSet::grow() {
    auto file = co_await disk_.create(slab_name(slabs_.size()));
    if (!file.ok() && file.error().code == Errc::kExists) {
        file = co_await disk_.open(slab_name(slabs_.size()));
    }
    if (!file.ok()) {
        co_return std::move(file).error();
    }
    Status allocated = co_await (*file)->allocate(slab_bytes_);
    if (!allocated.ok()) {
        file->reset();
        (void)co_await disk_.remove(slab_name(slabs_.size()));
        co_return allocated;
    }
    slabs_.emplace_back().file = std::move(*file);
    // Its size must be durable with the first data in it.
    dirty_.insert(slabs_.size() - 1);
    co_return Status();
}

uint64_t SlabSet::offset_of(const Extent& extent) const {
    return extent.first % blocks_per_slab() * kBlockBytes;
}

Task<Status> SlabSet::write(Extent extent, BufferChain data, TaskScope& scope) {
    uint64_t slab = extent.first / blocks_per_slab();
    uint64_t offset = offset_of(extent);
    pad_to_block(data);
    uint64_t bytes = data.size();
    Status written = co_await slabs_[slab].file->write(offset, std::move(data));
    // Only a write that completed is covered by the next sync.
    dirty_.insert(slab);
    if (written.ok()) {
        note_written(slabs_[slab], offset, bytes, scope);
    }
    co_return written;
}

void SlabSet::note_written(Slab& slab, uint64_t offset, uint64_t bytes, TaskScope& scope) {
    if (offset == slab.run_end) {
        slab.run_end += bytes;
    } else if (offset + bytes == slab.run_begin) {
        slab.run_begin = offset;
    } else {
        slab.run_begin = offset;
        slab.run_end = offset + bytes;
    }
    if (slab.run_end - slab.run_begin >= kWritebackBytes) {
        scope.spawn(slab.file->start_writeback(slab.run_begin, slab.run_end - slab.run_begin));
        slab.run_begin = slab.run_end;
    }
}

Task<Result<Buffer>> SlabSet::read(Extent extent) {
    File& file = *slabs_[extent.first / blocks_per_slab()].file;
    return file.read(offset_of(extent), extent.count * kBlockBytes);
}

Task<Status> SlabSet::sync(TaskScope& scope) {
    SemaphoreHold hold = co_await sync_mutex_.lock();
    std::set<uint64_t> dirty = std::exchange(dirty_, {});
    std::vector<Task<Status>> syncs;
    syncs.reserve(dirty.size());
    for (uint64_t slab : dirty) {
        syncs.push_back(slabs_[slab].file->sync());
    }
    std::vector<Status> results = co_await when_all(scope, std::move(syncs));
    for (Status& result : results) {
        KDFS_CO_TRY(std::move(result));
    }
    co_return Status();
}

void SlabSet::mark_all_dirty() {
    for (uint64_t slab = 0; slab < slabs_.size(); ++slab) {
        dirty_.insert(slab);
    }
}

}  // namespace kdfs::storage
