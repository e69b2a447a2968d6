#include "tests/unit/storage_cluster_world.h"

#include <gtest/gtest.h>

namespace kdfs::storage {
namespace {

constexpr Duration kPatience = std::chrono::seconds(300);
constexpr uint64_t kChunks = 20;
// One chunk each second.
constexpr uint64_t kSlow = Scrubber::kChunkCostMin;

ChunkKey chunk_number(uint64_t i) {
    return ChunkKey{ChainId(1 + i % 2), ChunkId{DataId(1), i / 2}};
}

std::string text_of(uint64_t i) { return std::string(9000, static_cast<char>('a' + i)); }

// Not synced, so that the bytes are in the slabs only.
Task<void> write_all(TestClient& client) {
    for (uint64_t i = 0; i < kChunks; ++i) {
        ChunkWrite change = change_of(pb::WRITE_DATA, 0, text_of(i));
        co_await client.write(chunk_number(i), std::move(change), 7, false);
    }
}

Task<void> expect_all(ChunkStore& store) {
    for (uint64_t i = 0; i < kChunks; ++i) {
        auto found = co_await content_of(store, chunk_number(i));
        EXPECT_TRUE(found.ok() && *found == text_of(i))
            << "target " << store.target().value << ", " << to_string(chunk_number(i));
    }
}

Task<void> remove_all(TestClient& client) {
    co_await client.remove_data(ChainId(1), DataId(1), 0);
    co_await client.remove_data(ChainId(2), DataId(1), 0);
}

// Puts a chunk into one store, past the chain.
Task<void> put(ChunkStore& store, ChunkKey key, uint64_t version, std::string text) {
    ChunkWrite change = change_of(pb::WRITE_REPLACE, 0, text);
    change.new_version = ChunkVersion(version);
    auto base = co_await store.find(key);
    EXPECT_TRUE(base.ok());
    auto staged = co_await store.stage(key, *base, std::move(change));
    EXPECT_TRUE(staged.ok());
    EXPECT_TRUE((co_await store.write_data(*staged)).ok());
    EXPECT_TRUE(store.commit(std::move(*staged)).ok());
}

Task<void> find_version(ChunkStore& store, ChunkKey key, uint64_t* version) {
    auto found = co_await store.find(key);
    *version = found.ok() && *found ? (*found)->version.value : 0;
}

TEST(ChunkMessagesTest, AWriteOfAnUnknownKindIsRefused) {
    pb::WriteRequest request;
    request.set_chain(1);
    request.mutable_chunk()->set_data(1);
    request.set_kind(static_cast<pb::WriteKind>(4711));

    auto checked = check_write(request, BufferChain());

    ASSERT_FALSE(checked.ok());
    EXPECT_EQ(checked.error().code, Errc::kInvalidArgument);
}

TEST(ChunkMessagesTest, AFlippedBitOfAWritesBytesIsNoticed) {
    std::string text(2 * kBlockBytes + 77, 'x');
    pb::WriteRequest request;
    request.set_chain(1);
    request.set_offset(100);
    request.set_checksums(pack_sums(sums_of(100, text)));
    request.set_session(1);
    request.set_write_id(1);
    request.mutable_chunk()->set_data(1);
    ASSERT_TRUE(check_write(request, BufferChain(Buffer::copy_of(text))).ok());
    for (size_t at = 0; at < text.size(); at += 61) {
        std::string changed = text;
        changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
        auto checked = check_write(request, BufferChain(Buffer::copy_of(changed)));
        ASSERT_FALSE(checked.ok()) << at;
        EXPECT_EQ(checked.error().code, Errc::kGarbled);
    }
}

class ScrubTest : public testing::Test {
protected:
    void SetUp() override {
        world_.boot();
        ASSERT_TRUE(world_.run_on(world_.client_node(), write_all(world_.client()), kPatience));
        world_.run_for(std::chrono::seconds(1));
    }
    void damage(uint64_t node) {
        for (uint64_t block = 1; block < 3 * kChunks; ++block) {
            auto& slab = *world_.storage_node(node).disk("t", 0).files().at("slab.000000");
            slab.flip_byte(block * 4096 + 9);
        }
    }
    const pb::ScrubProgress& progress(uint64_t node) {
        return world_.manager().report(node).scrub();
    }
    bool finished() {
        bool all = true;
        for (uint64_t node = 1; node <= world_.nodes(); ++node) {
            all = all && progress(node).finished() &&
                  progress(node).number() == world_.manager().map().scrub().number();
        }
        return all;
    }
    void scrub() {
        world_.manager().order_scrub(true, 64 * MiB);
        ASSERT_TRUE(world_.run_until([&] { return finished(); }, kPatience));
    }
    void expect_whole() {
        for (uint64_t node = 1; node <= world_.nodes(); ++node) {
            ASSERT_TRUE(world_.run_on(world_.storage_node(node),
                                      expect_all(world_.store(node)),
                                      kPatience));
        }
    }

    ClusterWorld world_{11, 3, 2};
};

TEST_F(ScrubTest, DamageThatNobodyReadIsFoundAndRepaired) {
    damage(2);
    scrub();
    for (uint64_t node = 1; node <= 3; ++node) {
        EXPECT_EQ(progress(node).chunks(), kChunks);
        EXPECT_EQ(progress(node).bytes(), kChunks * text_of(0).size());
        EXPECT_EQ(progress(node).damaged(), node == 2 ? kChunks : 0);
        EXPECT_EQ(progress(node).repaired(), node == 2 ? kChunks : 0);
        EXPECT_EQ(progress(node).unrepairable(), 0U);
        EXPECT_EQ(progress(node).unequal(), 0U);
    }
    expect_whole();
    scrub();
    EXPECT_EQ(progress(2).damaged(), 0U);
}

TEST_F(ScrubTest, CopiesThatAreDamagedInDifferentBlocksArePutTogether) {
    constexpr uint64_t kBlocksOfAChunk = 3;
    for (uint64_t node = 1; node <= 3; ++node) {
        auto& slab = *world_.storage_node(node).disk("t", 0).files().at("slab.000000");
        for (uint64_t block = node; block <= kBlocksOfAChunk * kChunks; block += kBlocksOfAChunk) {
            slab.flip_byte(block * 4096 + 9);
        }
    }
    scrub();
    for (uint64_t node = 1; node <= 3; ++node) {
        EXPECT_EQ(progress(node).damaged(), progress(node).repaired());
        EXPECT_EQ(world_.manager().report(node).damaged_chunks(), 0U);
    }
    EXPECT_EQ(progress(1).damaged(), kChunks);
    expect_whole();
}

TEST_F(ScrubTest, WhatNobodyHasWholeIsNamedUntilItIsRemoved) {
    damage(1);
    damage(2);
    damage(3);
    scrub();
    for (uint64_t node = 1; node <= 3; ++node) {
        EXPECT_EQ(progress(node).unrepairable(), kChunks);
        EXPECT_EQ(world_.manager().report(node).damaged_chunks(), kChunks);
        EXPECT_EQ(world_.manager().report(node).damaged_size(),
                  static_cast<int>(Replicator::kDamagedNamed));
        EXPECT_EQ(world_.manager().report(node).damaged(0).data(), 1U);
    }
    // Also after a restart.
    world_.storage_node(3).kill();
    ASSERT_TRUE(world_.run_until([&] { return !world_.manager().healthy(); }, kPatience));
    world_.storage_node(3).boot();
    world_.run_for(std::chrono::seconds(1));
    EXPECT_GE(world_.manager().report(3).damaged_chunks(), Replicator::kDamagedNamed);

    ASSERT_TRUE(world_.run_on(world_.client_node(), remove_all(world_.client()), kPatience));
    EXPECT_TRUE(world_.run_until(
        [&] {
            return world_.manager().report(1).damaged_chunks() == 0 &&
                   world_.manager().report(2).damaged_chunks() == 0;
        },
        kPatience));
}

TEST_F(ScrubTest, ACopyThatDiffersFromTheHeadsIsMadeEqual) {
    ChunkKey key = chunk_number(0);  // chain 1: heads on node 2
    uint64_t version = 0;
    ASSERT_TRUE(world_.run_on(world_.storage_node(2),
                              find_version(world_.store(2), key, &version),
                              kPatience));
    ASSERT_TRUE(world_.run_on(world_.storage_node(3),
                              put(world_.store(3), key, version, "another text"),
                              kPatience));
    scrub();
    EXPECT_EQ(progress(2).unequal(), 1U);
    EXPECT_EQ(progress(2).levelled(), 1U);
    expect_whole();
}

// Its version says that the head has lost a write; to copy the head's would lose it for good.
TEST_F(ScrubTest, ACopyThatIsNewerThanTheHeadsStays) {
    ChunkKey changed = chunk_number(0);
    ChunkKey only_there = chunk_number(0);
    only_there.chunk.data = DataId(9);
    uint64_t version = 0;
    ASSERT_TRUE(world_.run_on(world_.storage_node(2),
                              find_version(world_.store(2), changed, &version),
                              kPatience));
    for (ChunkKey key : {changed, only_there}) {
        ASSERT_TRUE(world_.run_on(world_.storage_node(3),
                                  put(world_.store(3), key, version + 1, "newer"),
                                  kPatience));
    }
    scrub();
    EXPECT_EQ(progress(2).unequal(), 2U);
    EXPECT_EQ(progress(2).levelled(), 0U);
    for (ChunkKey key : {changed, only_there}) {
        uint64_t now = 0;
        ASSERT_TRUE(world_.run_on(world_.storage_node(3),
                                  find_version(world_.store(3), key, &now),
                                  kPatience));
        EXPECT_EQ(now, version + 1);
    }
}

TEST_F(ScrubTest, ADaemonThatIsStartedAgainGoesOnWhereItWas) {
    world_.manager().order_scrub(true, kSlow);
    world_.run_for(std::chrono::seconds(12));
    EXPECT_FALSE(progress(2).finished());
    EXPECT_GE(progress(2).chunks(), 10U);
    EXPECT_LE(progress(2).chunks(), 13U);
    world_.storage_node(2).kill();
    ASSERT_TRUE(world_.run_until([&] { return !world_.manager().healthy(); }, kPatience));
    world_.storage_node(2).boot();
    ASSERT_TRUE(world_.run_until([&] { return finished(); }, kPatience));
    // What was read after the state was kept is read again.
    EXPECT_GE(progress(2).chunks(), kChunks);
    EXPECT_LE(progress(2).chunks(), kChunks + 6);
    EXPECT_EQ(progress(2).chains_done(), 2U);
}

TEST_F(ScrubTest, AStoppedScrubReadsNoMoreAndANewOneBeginsAnew) {
    world_.manager().order_scrub(true, kSlow);
    world_.run_for(std::chrono::seconds(3));
    world_.manager().order_scrub(false, kSlow);
    world_.run_for(std::chrono::seconds(2));
    uint64_t read = progress(1).chunks();
    EXPECT_LT(read, kChunks);
    world_.run_for(std::chrono::seconds(60));
    EXPECT_EQ(progress(1).chunks(), read);
    EXPECT_FALSE(progress(1).finished());
    scrub();
    EXPECT_EQ(progress(1).number(), 2U);
    EXPECT_EQ(progress(1).chunks(), kChunks);
}

TEST_F(ScrubTest, AChainThatIsNotServedIsLeftForLater) {
    world_.storage_node(3).kill();
    ASSERT_TRUE(world_.run_until([&] { return !world_.manager().healthy(); }, kPatience));
    world_.manager().order_scrub(true, 64 * MiB);
    ASSERT_TRUE(world_.run_until([&] { return progress(1).finished() && progress(2).finished(); },
                                 kPatience));
    world_.storage_node(3).boot();
    EXPECT_TRUE(world_.run_until([&] { return finished(); }, kPatience));
    EXPECT_EQ(progress(3).chunks(), kChunks);
}

}  // namespace
}  // namespace kdfs::storage
