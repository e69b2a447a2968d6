#pragma once

#include "kdfs/base/types.h"

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

namespace kdfs::storage {

// Blocks of kBlockBytes are numbered through all slabs of a target: slab number times blocks per
// slab, plus the block in it. Block 0 is never given out; its number stands for "all zeros".
using BlockNumber = uint64_t;
inline constexpr BlockNumber kHole = 0;

struct Extent {
    BlockNumber first = 0;
    uint64_t count = 0;

    auto operator<=>(const Extent&) const = default;
};

// Which blocks of the slabs are in use, and by how many records each. Pure bookkeeping in memory:
// it is rebuilt from the records when the store opens.
//
// A block goes free -> used (allocate) -> shared (ref) ... -> quarantined (the last unref) -> free
// (release). A block in quarantine is given out again only once the change that freed it can no
// longer be undone by a crash. Each quarantined block carries the sequence number of the newest
// change at that time; release(durable) frees those whose number is not above `durable`.
class ExtentAllocator {
public:
    // `blocks_per_slab` is a multiple of 64.
    explicit ExtentAllocator(uint64_t blocks_per_slab);

    void add_slab();
    uint64_t slabs() const { return slabs_.size(); }
    uint64_t blocks_per_slab() const { return blocks_per_slab_; }
    uint64_t slab_of(BlockNumber block) const { return block / blocks_per_slab_; }

    // `count` used blocks in one run within one slab, or nothing if no slab has such a run.
    std::optional<Extent> allocate_run(uint64_t count);
    // `count` used blocks in as many runs as it takes; empty if there are not enough free ones.
    std::vector<Extent> allocate_pieces(uint64_t count);

    // One more user of blocks in use.
    void ref(const Extent& extent);
    // One user less. Blocks that lose their last go to quarantine under `stamp`, which never goes
    // down from call to call.
    void unref(const Extent& extent, uint64_t stamp);
    void release(uint64_t durable);
    // Frees blocks with one user that no record ever named.
    void free_now(const Extent& extent);

    // While rebuilding: counts a user of blocks that may be free so far. False, and nothing is
    // counted, if some block does not exist.
    bool mark(const Extent& extent);
    bool exists(const Extent& extent) const;

    uint64_t total_blocks() const { return slabs_.size() * blocks_per_slab_; }
    uint64_t free_blocks() const { return free_; }
    uint64_t quarantined_blocks() const { return quarantined_; }
    // Users of a block: 0 if it is free or in quarantine.
    uint64_t users(BlockNumber block) const;

private:
    struct Slab {
        std::vector<uint64_t> used;  // one bit per block
        uint64_t free = 0;
        uint64_t cursor = 0;           // where the next search starts
        uint64_t longest_run_max = 0;  // no free run is longer than this
    };
    struct Share {
        uint64_t count = 0;
        uint64_t extra = 0;  // users beyond the first
    };
    struct Freed {
        uint64_t stamp = 0;
        Extent extent;
    };

    bool is_used(BlockNumber block) const;
    void set_used(const Extent& extent);
    void set_free(const Extent& extent);
    std::optional<Extent> find_run(uint64_t slab, uint64_t want, uint64_t* longest);
    // Makes a share boundary at `block`.
    void split_share(BlockNumber block);
    void merge_share(BlockNumber block);
    void add_share(const Extent& extent);

    uint64_t blocks_per_slab_;
    uint64_t current_slab_ = 0;
    uint64_t free_ = 0;
    uint64_t quarantined_ = 0;
    std::vector<Slab> slabs_;
    std::map<BlockNumber, Share> shares_;  // by first block; only blocks with two users or more
    std::deque<Freed> quarantine_;
};

}  // namespace kdfs::storage
