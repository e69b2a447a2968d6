#include "client/block_sums.h"
#include "client/inode_cache.h"
#include "client/read_ahead.h"
#include "kdfs/base/checksum.h"
#include "kdfs/base/random.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace kdfs::client {
namespace {

std::string sums_by_hand(uint64_t offset, const std::string& bytes) {
    std::string out;
    size_t at = 0;
    while (at < bytes.size()) {
        size_t take =
            std::min<size_t>(bytes.size() - at, kBlockBytes - (offset + at) % kBlockBytes);
        uint64_t sum = checksum(std::string_view(bytes).substr(at, take));
        out.append(reinterpret_cast<const char*>(&sum), sizeof sum);
        at += take;
    }
    return out;
}

TEST(BlockSumsTest, AnyCutIntoBuffersGivesTheSameSums) {
    Random random(3);
    for (int round = 0; round < 200; ++round) {
        uint64_t offset = random.below(3 * kBlockBytes);
        std::string bytes(random.range(1, 5 * kBlockBytes), '\0');
        for (char& c : bytes) {
            c = static_cast<char>(random.u64());
        }
        BufferChain chain;
        for (size_t at = 0; at < bytes.size();) {
            size_t take = std::min<size_t>(random.range(1, 2 * kBlockBytes), bytes.size() - at);
            chain.append(Buffer::copy_of(std::string_view(bytes).substr(at, take)));
            at += take;
        }

        EXPECT_EQ(block_sums(offset, chain), sums_by_hand(offset, bytes));
    }
}

TEST(BlockSumsTest, ChangedByteIsFoundAndNamed) {
    Buffer data = Buffer::zeros(3 * kBlockBytes);
    BufferChain chain(data);
    std::string sums = block_sums(0, chain);
    ASSERT_TRUE(verify_block_sums(chain, sums).ok());

    data.mutable_data()[kBlockBytes + 1] = std::byte{1};

    Status status = verify_block_sums(chain, sums);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Errc::kGarbled);
    EXPECT_NE(status.error().detail.find("4096"), std::string::npos);
}

TEST(BlockSumsTest, MissingSumsAreNoticed) {
    BufferChain chain(Buffer::zeros(kBlockBytes));

    EXPECT_FALSE(verify_block_sums(chain, "").ok());
    EXPECT_TRUE(verify_block_sums(BufferChain(), "").ok());
}

TEST(ReadAheadTest, SequentialReaderGetsEachPieceOnceAndNothingBehindTheEnd) {
    ReadAhead ahead(1 * MiB, 4 * MiB);
    uint64_t size = 20 * MiB + 5;
    std::vector<uint64_t> planned;

    for (uint64_t at = 0; at < size; at += 128 * KiB) {
        ReadAhead::Plan plan = ahead.on_read(at, 128 * KiB, size);
        for (uint64_t piece = plan.first; piece < plan.beyond; ++piece) {
            planned.push_back(piece);
        }
    }

    ASSERT_EQ(planned.size(), 21U);
    for (uint64_t i = 0; i < planned.size(); ++i) {
        EXPECT_EQ(planned[i], i);
    }
}

TEST(ReadAheadTest, JumpingReaderGetsNothing) {
    ReadAhead ahead(1 * MiB, 4 * MiB);
    Random random(7);

    for (int i = 0; i < 100; ++i) {
        uint64_t at = (random.below(1000) * 2 + 1000 * (i % 2)) * MiB;
        ReadAhead::Plan plan = ahead.on_read(at, 4096, uint64_t{1} << 40);
        if (!plan.sequential) {
            EXPECT_EQ(plan.first, plan.beyond);
        }
    }
}

pb::Grant grant(pb::LeaseMode mode, uint64_t seq) {
    pb::Grant g;
    g.set_mode(mode);
    g.set_lease_seq(seq);
    return g;
}

TEST(InodeCacheTest, GrantThatWasRecalledBeforeItArrivedGivesNoLease) {
    InodeCache cache;
    InodeRef inode = cache.get(InodeId(5));
    cache.cap(*inode, 7, pb::LEASE_NONE);

    cache.adopt_grant(*inode, grant(pb::LEASE_EXCLUSIVE, 7));
    EXPECT_EQ(inode->lease, pb::LEASE_NONE);

    cache.adopt_grant(*inode, grant(pb::LEASE_EXCLUSIVE, 8));
    EXPECT_EQ(inode->lease, pb::LEASE_EXCLUSIVE);
}

TEST(InodeCacheTest, RecallOfAnUnknownInodeIsRememberedForItsGrant) {
    InodeCache cache;
    cache.cap_absent(InodeId(5), 7, pb::LEASE_READ);

    InodeRef inode = cache.get(InodeId(5));
    cache.adopt_grant(*inode, grant(pb::LEASE_EXCLUSIVE, 7));

    EXPECT_EQ(inode->lease, pb::LEASE_READ);
}

TEST(InodeCacheTest, RecallsOfUnknownInodesAreRememberedWithinABound) {
    InodeCache cache;
    constexpr uint64_t kRecalls = InodeCache::kAbsentCapsMax + 1000;
    for (uint64_t i = 1; i <= kRecalls; ++i) {
        cache.cap_absent(InodeId(1000 + i), i, pb::LEASE_NONE);
    }
    EXPECT_EQ(cache.absent_caps(), InodeCache::kAbsentCapsMax);

    // None of the grants they overtook counts, neither of the oldest nor of the newest.
    for (uint64_t i : {uint64_t{1}, uint64_t{1000}, uint64_t{1001}, kRecalls}) {
        InodeRef inode = cache.get(InodeId(1000 + i));
        cache.adopt_grant(*inode, grant(pb::LEASE_READ, i));
        EXPECT_EQ(inode->lease, pb::LEASE_NONE) << i;
    }
    InodeRef other = cache.get(InodeId(7));
    cache.adopt_grant(*other, grant(pb::LEASE_READ, kRecalls));
    EXPECT_EQ(other->lease, pb::LEASE_READ);

    // Once no answer is under way, every grant counts again.
    cache.forget_caps();
    EXPECT_EQ(cache.absent_caps(), 0U);
    InodeRef late = cache.get(InodeId(8));
    cache.adopt_grant(*late, grant(pb::LEASE_READ, 1));
    EXPECT_EQ(late->lease, pb::LEASE_READ);
}

TEST(InodeCacheTest, OlderAnswerDoesNotReplaceNewerAttributesUnderALease) {
    InodeCache cache;
    InodeRef inode = cache.get(InodeId(5));
    cache.adopt_grant(*inode, grant(pb::LEASE_READ, 1));
    pb::Attr attr;
    attr.set_ino(5);
    attr.set_change(10);
    attr.set_mode(1);
    cache.adopt_attr(*inode, attr);

    attr.set_change(9);
    attr.set_mode(2);
    cache.adopt_attr(*inode, attr);

    EXPECT_EQ(inode->attr.mode(), 1U);
}

TEST(InodeCacheTest, APathIsToldAsFarAsNamesAreKnown) {
    InodeCache cache;
    EXPECT_EQ(cache.known_path(InodeId(5)), "");
    cache.get(InodeId(4))->names["file"] = InodeId(5);
    cache.get(InodeId(4))->names["another"] = InodeId(6);
    EXPECT_EQ(cache.known_path(InodeId(5)), ".../file");
    cache.get(kRootInode)->names["folder"] = InodeId(4);
    EXPECT_EQ(cache.known_path(InodeId(5)), "/folder/file");
    EXPECT_EQ(cache.known_path(InodeId(6)), "/folder/another");
    // Names that lead in a circle come to an end.
    cache.get(InodeId(8))->names["a"] = InodeId(9);
    cache.get(InodeId(9))->names["b"] = InodeId(8);
    EXPECT_FALSE(cache.known_path(InodeId(9)).empty());
}

TEST(InodeCacheTest, DirtySizeSurvivesAnAnswerOfTheServer) {
    InodeCache cache;
    InodeRef inode = cache.get(InodeId(5));
    inode->attr.set_size(100);
    inode->size_dirty = true;
    pb::Attr attr;
    attr.set_ino(5);
    attr.set_size(50);
    attr.set_mode(7);

    cache.adopt_attr(*inode, attr);

    EXPECT_EQ(inode->attr.size(), 100U);
    EXPECT_EQ(inode->attr.mode(), 7U);
}

pb::Attr attr_of(uint64_t change, uint64_t cut, uint64_t size) {
    pb::Attr attr;
    attr.set_ino(5);
    attr.set_change(change);
    attr.set_cut(cut);
    attr.set_size(size);
    return attr;
}

TEST(InodeCacheTest, DirtySizeIsKeptUntilTheServerShowsThatItKnowsIt) {
    InodeCache cache;
    InodeRef inode = cache.get(InodeId(5));
    cache.adopt_attr(*inode, attr_of(3, 2, 50));
    inode->attr.set_size(100);
    inode->size_dirty = true;

    cache.adopt_attr(*inode, attr_of(4, 2, 60));
    EXPECT_EQ(inode->attr.size(), 100U);
    EXPECT_TRUE(inode->size_dirty);
    cache.adopt_attr(*inode, attr_of(5, 2, 120));

    EXPECT_EQ(inode->attr.size(), 120U);
    EXPECT_FALSE(inode->size_dirty);
}

TEST(InodeCacheTest, DirtySizeIsForgottenOnceTheSizeWasSet) {
    InodeCache cache;
    InodeRef inode = cache.get(InodeId(5));
    inode->attr = attr_of(3, 2, 100);
    inode->size_dirty = true;

    cache.adopt_attr(*inode, attr_of(6, 6, 10));
    EXPECT_EQ(inode->attr.size(), 10U);
    EXPECT_FALSE(inode->size_dirty);

    // An answer from before that comes late takes nothing back.
    inode->attr.set_size(20);
    inode->size_dirty = true;
    cache.adopt_attr(*inode, attr_of(4, 2, 100));
    EXPECT_EQ(inode->attr.size(), 20U);
}

TEST(InodeCacheTest, ALateRecallTakesNoLeaseThatWasGivenSince) {
    InodeCache cache;
    InodeRef inode = cache.get(InodeId(5));
    cache.adopt_grant(*inode, grant(pb::LEASE_READ, 7));
    cache.cap(*inode, 7, pb::LEASE_NONE);
    cache.adopt_grant(*inode, grant(pb::LEASE_EXCLUSIVE, 9));

    cache.cap(*inode, 7, pb::LEASE_NONE);

    EXPECT_EQ(inode->lease, pb::LEASE_EXCLUSIVE);
    cache.cap(*inode, 9, pb::LEASE_NONE);
    EXPECT_EQ(inode->lease, pb::LEASE_NONE);
    // The same question again, an earlier one that left more.
    cache.cap(*inode, 9, pb::LEASE_READ);
    cache.adopt_grant(*inode, grant(pb::LEASE_READ, 9));
    EXPECT_EQ(inode->lease, pb::LEASE_NONE);
}

TEST(InodeCacheTest, NamesAreCountedAndDroppedOldestDirectoryFirst) {
    InodeCache cache;
    for (uint64_t d = 1; d <= 3; ++d) {
        InodeRef directory = cache.get(InodeId(d));
        for (int i = 0; i < 10; ++i) {
            cache.set_name(*directory, "n" + std::to_string(i), InodeId(100));
        }
    }
    cache.touch(*cache.find(InodeId(1)));

    cache.shrink_names(20);

    EXPECT_EQ(cache.names(), 20U);
    EXPECT_TRUE(cache.find(InodeId(2))->names.empty());
    EXPECT_EQ(cache.find(InodeId(1))->names.size(), 10U);
}

}  // namespace
}  // namespace kdfs::client
