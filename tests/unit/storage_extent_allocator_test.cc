#include "kdfs/base/random.h"
#include "storage/extent_allocator.h"

#include <gtest/gtest.h>

#include <map>

namespace kdfs::storage {
namespace {

TEST(ExtentAllocatorTest, HoleIsNeverGivenOut) {
    ExtentAllocator allocator(64);
    allocator.add_slab();

    EXPECT_EQ(allocator.free_blocks(), 63u);
    EXPECT_FALSE(allocator.allocate_run(64).has_value());
    auto run = allocator.allocate_run(63);

    ASSERT_TRUE(run.has_value());
    EXPECT_EQ(run->first, 1u);
}

TEST(ExtentAllocatorTest, FreedBlockWaitsForTheDurablePoint) {
    ExtentAllocator allocator(64);
    allocator.add_slab();
    Extent all = *allocator.allocate_run(63);

    allocator.unref(all, 7);
    EXPECT_EQ(allocator.quarantined_blocks(), 63u);
    EXPECT_FALSE(allocator.allocate_run(1).has_value());
    allocator.release(6);
    EXPECT_FALSE(allocator.allocate_run(1).has_value());
    allocator.release(7);

    EXPECT_TRUE(allocator.allocate_run(63).has_value());
}

TEST(ExtentAllocatorTest, SharedBlockIsFreedByItsLastUser) {
    ExtentAllocator allocator(64);
    allocator.add_slab();
    Extent run = *allocator.allocate_run(8);

    allocator.ref(Extent{run.first + 2, 4});
    allocator.unref(run, 1);
    EXPECT_EQ(allocator.quarantined_blocks(), 4u);
    EXPECT_EQ(allocator.users(run.first + 3), 1u);
    allocator.unref(Extent{run.first + 2, 4}, 2);
    allocator.release(2);

    EXPECT_EQ(allocator.free_blocks(), 63u);
}

TEST(ExtentAllocatorTest, PiecesFillTheGaps) {
    ExtentAllocator allocator(64);
    allocator.add_slab();
    Extent all = *allocator.allocate_run(63);
    for (uint64_t i = 0; i < 63; i += 2) {
        allocator.free_now(Extent{all.first + i, 1});
    }

    EXPECT_FALSE(allocator.allocate_run(2).has_value());
    EXPECT_TRUE(allocator.allocate_pieces(33).empty());
    EXPECT_EQ(allocator.allocate_pieces(32).size(), 32u);
    EXPECT_EQ(allocator.free_blocks(), 0u);
}

TEST(ExtentAllocatorTest, MarkRefusesBlocksThatDoNotExist) {
    ExtentAllocator allocator(64);
    allocator.add_slab();
    allocator.add_slab();

    EXPECT_FALSE(allocator.mark(Extent{0, 1}));
    EXPECT_FALSE(allocator.mark(Extent{127, 2}));
    EXPECT_FALSE(allocator.mark(Extent{60, 8}));
    EXPECT_FALSE(allocator.mark(Extent{UINT64_MAX, 2}));
    EXPECT_TRUE(allocator.mark(Extent{60, 4}));
    EXPECT_EQ(allocator.free_blocks(), 123u);
}

TEST(ExtentAllocatorTest, RandomStepsAgreeWithCounters) {
    Random random(1);
    ExtentAllocator allocator(128);
    std::map<BlockNumber, uint64_t> users;
    std::vector<Extent> held;
    uint64_t seq = 0;
    for (int step = 0; step < 20000; ++step) {
        uint64_t what = random.below(10);
        if (what < 4) {
            auto run = allocator.allocate_run(random.range(1, 20));
            if (run) {
                held.push_back(*run);
                for (uint64_t i = 0; i < run->count; ++i) {
                    EXPECT_EQ(users[run->first + i]++, 0u);
                }
            } else if (allocator.slabs() < 4) {
                allocator.add_slab();
            }
        } else if (what < 6 && !held.empty()) {
            Extent from = held[random.below(held.size())];
            uint64_t skip = random.below(from.count);
            Extent part{from.first + skip, random.range(1, from.count - skip)};
            allocator.ref(part);
            held.push_back(part);
            for (uint64_t i = 0; i < part.count; ++i) {
                users[part.first + i]++;
            }
        } else if (what < 9 && !held.empty()) {
            size_t at = random.below(held.size());
            allocator.unref(held[at], ++seq);
            for (uint64_t i = 0; i < held[at].count; ++i) {
                users[held[at].first + i]--;
            }
            held.erase(held.begin() + static_cast<ptrdiff_t>(at));
        } else {
            allocator.release(random.range(0, seq));
        }
    }
    uint64_t used = 0;
    for (const auto& [block, count] : users) {
        EXPECT_EQ(allocator.users(block), count) << block;
        used += count != 0 ? 1 : 0;
    }
    EXPECT_EQ(allocator.free_blocks() + allocator.quarantined_blocks() + used + 1,
              allocator.total_blocks());
}

}  // namespace
}  // namespace kdfs::storage
