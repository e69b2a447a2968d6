#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"
#include "kdfs/rt/disk.h"
#include "kdfs/rt/sync.h"
#include "storage/extent_allocator.h"

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace kdfs::storage {

// The slab files of one target, "slab.000000" onwards, each `slab_bytes` long. An Extent lies in
// one of them. Data is volatile until sync(); the files themselves are durable once made. `disk`
// outlives it.
class SlabSet {
public:
    SlabSet(Disk& disk, uint64_t slab_bytes) : disk_(disk), slab_bytes_(slab_bytes) {}

    // Opens every slab there is, and completes one whose making was cut short. kCorrupt if one is
    // missing in between.
    Task<Status> open();
    // Makes one more.
    Task<Status> grow();
    uint64_t count() const { return slabs_.size(); }
    uint64_t blocks_per_slab() const { return slab_bytes_ / kBlockBytes; }
    uint64_t slab_bytes() const { return slab_bytes_; }
    bool dirty() const { return !dirty_.empty(); }

    // `data` has extent.count blocks, but the last may be short. Long runs of writes start on their
    // way to the disk before a sync() asks for it, by tasks in `scope`.
    Task<Status> write(Extent extent, BufferChain data, TaskScope& scope);
    Task<Result<Buffer>> read(Extent extent);
    // Makes every write that completed before this call durable. A failure is final: the caller
    // must stop trusting the target.
    Task<Status> sync(TaskScope& scope);
    void mark_all_dirty();

private:
    // Bytes of the slab written one behind the other that the disk has not begun with.
    struct Slab {
        std::unique_ptr<File> file;
        uint64_t run_begin = 0;
        uint64_t run_end = 0;
    };
    // So long a run is worth a start of its own.
    static constexpr uint64_t kWritebackBytes = 2 * MiB;

    uint64_t offset_of(const Extent& extent) const;
    void note_written(Slab& slab, uint64_t offset, uint64_t bytes, TaskScope& scope);

    Disk& disk_;
    uint64_t slab_bytes_;
    std::vector<Slab> slabs_;
    std::set<uint64_t> dirty_;  // slab numbers
    // A sync waits for one under way, which may have taken over slabs that it must cover.
    AsyncMutex sync_mutex_;
};

}  // namespace kdfs::storage
