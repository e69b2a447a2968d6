#include "storage/extent_allocator.h"

#include "kdfs/base/check.h"

#include <algorithm>
#include <bit>
#include <iterator>

namespace kdfs::storage {
namespace {

constexpr uint64_t kWordBits = 64;

bool test_bit(const std::vector<uint64_t>& bits, uint64_t at) {
    return ((bits[at / kWordBits] >> (at % kWordBits)) & 1) != 0;
}

// The first position in [from, end) whose bit is `value`, or `end`.
uint64_t next_bit(const std::vector<uint64_t>& bits, uint64_t from, uint64_t end, bool value) {
    while (from < end) {
        uint64_t word = bits[from / kWordBits];
        word = (value ? word : ~word) >> (from % kWordBits);
        if (word != 0) {
            return std::min(end, from + static_cast<uint64_t>(std::countr_zero(word)));
        }
        from = (from / kWordBits + 1) * kWordBits;
    }
    return end;
}

}  // namespace

ExtentAllocator::ExtentAllocator(uint64_t blocks_per_slab) : blocks_per_slab_(blocks_per_slab) {
    KDFS_CHECK(blocks_per_slab != 0 && blocks_per_slab % kWordBits == 0);
}

void ExtentAllocator::add_slab() {
    Slab slab;
    slab.used.assign(blocks_per_slab_ / kWordBits, 0);
    slab.free = blocks_per_slab_;
    slab.longest_run_max = blocks_per_slab_;
    if (slabs_.empty()) {
        slab.used[0] = 1;  // kHole
        slab.free -= 1;
    }
    free_ += slab.free;
    slabs_.push_back(std::move(slab));
    // New space is one run: look there first.
    current_slab_ = slabs_.size() - 1;
}

std::optional<Extent> ExtentAllocator::find_run(uint64_t slab, uint64_t want, uint64_t* longest) {
    Slab& s = slabs_[slab];
    *longest = 0;
    uint64_t starts[2] = {s.cursor, 0};
    for (uint64_t at : starts) {
        while (at < blocks_per_slab_) {
            at = next_bit(s.used, at, blocks_per_slab_, false);
            uint64_t end = next_bit(s.used, at, std::min(blocks_per_slab_, at + want), true);
            if (at < end && end - at >= want) {
                return Extent{slab * blocks_per_slab_ + at, want};
            }
            *longest = std::max(*longest, end - at);
            at = end;
        }
    }
    return std::nullopt;
}

std::optional<Extent> ExtentAllocator::allocate_run(uint64_t count) {
    KDFS_CHECK(count != 0);
    for (uint64_t i = 0; i < slabs_.size(); ++i) {
        uint64_t index = (current_slab_ + i) % slabs_.size();
        Slab& slab = slabs_[index];
        if (slab.free < count || slab.longest_run_max < count) {
            continue;
        }
        uint64_t longest = 0;
        if (auto run = find_run(index, count, &longest)) {
            set_used(*run);
            current_slab_ = index;
            return run;
        }
        slab.longest_run_max = longest;
    }
    return std::nullopt;
}

std::vector<Extent> ExtentAllocator::allocate_pieces(uint64_t count) {
    std::vector<Extent> out;
    if (free_ < count) {
        return out;
    }
    for (uint64_t index = 0; index < slabs_.size() && count != 0; ++index) {
        const Slab& slab = slabs_[index];
        uint64_t at = 0;
        while (count != 0 && slab.free != 0) {
            at = next_bit(slab.used, at, blocks_per_slab_, false);
            uint64_t end = next_bit(slab.used, at, std::min(blocks_per_slab_, at + count), true);
            if (at == end) {
                break;
            }
            Extent run{index * blocks_per_slab_ + at, end - at};
            set_used(run);
            out.push_back(run);
            count -= run.count;
            at = end;
        }
    }
    KDFS_CHECK(count == 0);
    return out;
}

void ExtentAllocator::ref(const Extent& extent) {
    KDFS_CHECK(exists(extent) && is_used(extent.first));
    add_share(extent);
}

void ExtentAllocator::add_share(const Extent& extent) {
    BlockNumber end = extent.first + extent.count;
    split_share(extent.first);
    split_share(end);
    BlockNumber at = extent.first;
    while (at < end) {
        auto next = shares_.lower_bound(at);
        if (next != shares_.end() && next->first == at) {
            next->second.extra += 1;
            at += next->second.count;
            continue;
        }
        BlockNumber stop = next == shares_.end() ? end : std::min(end, next->first);
        shares_[at] = Share{stop - at, 1};
        at = stop;
    }
    merge_share(extent.first);
    merge_share(end);
}

void ExtentAllocator::unref(const Extent& extent, uint64_t stamp) {
    KDFS_CHECK(exists(extent) && (quarantine_.empty() || quarantine_.back().stamp <= stamp));
    BlockNumber end = extent.first + extent.count;
    if (!shares_.empty()) {
        split_share(extent.first);
        split_share(end);
    }
    BlockNumber at = extent.first;
    while (at < end) {
        auto next = shares_.lower_bound(at);
        if (next != shares_.end() && next->first == at) {
            at += next->second.count;
            next->second.extra -= 1;
            if (next->second.extra == 0) {
                shares_.erase(next);
            }
            continue;
        }
        BlockNumber stop = next == shares_.end() ? end : std::min(end, next->first);
        KDFS_CHECK(is_used(at));
        quarantine_.push_back(Freed{stamp, Extent{at, stop - at}});
        quarantined_ += stop - at;
        at = stop;
    }
    if (!shares_.empty()) {
        merge_share(extent.first);
        merge_share(end);
    }
}

void ExtentAllocator::release(uint64_t durable) {
    while (!quarantine_.empty() && quarantine_.front().stamp <= durable) {
        const Extent& extent = quarantine_.front().extent;
        quarantined_ -= extent.count;
        set_free(extent);
        quarantine_.pop_front();
    }
}

void ExtentAllocator::free_now(const Extent& extent) { set_free(extent); }

bool ExtentAllocator::mark(const Extent& extent) {
    if (!exists(extent)) {
        return false;
    }
    BlockNumber end = extent.first + extent.count;
    for (BlockNumber at = extent.first; at < end; ++at) {
        if (is_used(at)) {
            add_share(Extent{at, 1});
        } else {
            set_used(Extent{at, 1});
        }
    }
    return true;
}

bool ExtentAllocator::exists(const Extent& extent) const {
    return extent.first != kHole && extent.count != 0 && extent.first < total_blocks() &&
           extent.count <= total_blocks() - extent.first &&
           slab_of(extent.first) == slab_of(extent.first + extent.count - 1);
}

uint64_t ExtentAllocator::users(BlockNumber block) const {
    if (!is_used(block)) {
        return 0;
    }
    for (const Freed& freed : quarantine_) {
        if (freed.extent.first <= block && block < freed.extent.first + freed.extent.count) {
            return 0;
        }
    }
    auto next = shares_.upper_bound(block);
    if (next != shares_.begin()) {
        auto share = std::prev(next);
        if (block < share->first + share->second.count) {
            return 1 + share->second.extra;
        }
    }
    return 1;
}

bool ExtentAllocator::is_used(BlockNumber block) const {
    return test_bit(slabs_[slab_of(block)].used, block % blocks_per_slab_);
}

void ExtentAllocator::set_used(const Extent& extent) {
    Slab& slab = slabs_[slab_of(extent.first)];
    uint64_t at = extent.first % blocks_per_slab_;
    for (uint64_t i = at; i < at + extent.count; ++i) {
        slab.used[i / kWordBits] |= uint64_t{1} << (i % kWordBits);
    }
    slab.cursor = (at + extent.count) % blocks_per_slab_;
    slab.free -= extent.count;
    free_ -= extent.count;
}

void ExtentAllocator::set_free(const Extent& extent) {
    Slab& slab = slabs_[slab_of(extent.first)];
    uint64_t at = extent.first % blocks_per_slab_;
    for (uint64_t i = at; i < at + extent.count; ++i) {
        KDFS_CHECK(test_bit(slab.used, i));
        slab.used[i / kWordBits] &= ~(uint64_t{1} << (i % kWordBits));
    }
    slab.free += extent.count;
    // The run may have joined free neighbours, so its length says too little.
    slab.longest_run_max = blocks_per_slab_;
    free_ += extent.count;
}

void ExtentAllocator::split_share(BlockNumber block) {
    auto next = shares_.lower_bound(block);
    if (next == shares_.begin()) {
        return;
    }
    auto share = std::prev(next);
    BlockNumber end = share->first + share->second.count;
    if (block < end) {
        Share tail{end - block, share->second.extra};
        share->second.count = block - share->first;
        shares_.emplace(block, tail);
    }
}

void ExtentAllocator::merge_share(BlockNumber block) {
    auto right = shares_.find(block);
    if (right == shares_.end() || right == shares_.begin()) {
        return;
    }
    auto left = std::prev(right);
    if (left->first + left->second.count == block && left->second.extra == right->second.extra) {
        left->second.count += right->second.count;
        shares_.erase(right);
    }
}

}  // namespace kdfs::storage
