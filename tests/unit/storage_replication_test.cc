#include "tests/unit/storage_cluster_world.h"

#include <gtest/gtest.h>

namespace kdfs::storage {
namespace {

constexpr Duration kPatience = std::chrono::seconds(120);

ChunkKey chunk_on(uint64_t chain, uint64_t data, uint64_t index) {
    return ChunkKey{ChainId(chain), ChunkId{DataId(data), index}};
}

const pb::Chain& chain_of(ClusterWorld& world) { return world.manager().map().chains(0); }

using Contents = std::map<ChunkKey, std::optional<std::string>>;

// Every member has the same chunks with the same bytes, and these are the expected ones.
Task<void> check_member(ChunkStore& store, ChainId chain, const Contents& expected) {
    ChunkStore::Range range;
    range.chain = chain;
    auto page = co_await store.list(range);
    EXPECT_TRUE(page.ok());
    std::set<ChunkId> seen;
    for (const ChunkStore::Listed& listed : page->chunks) {
        seen.insert(listed.chunk);
    }
    for (const auto& [key, content] : expected) {
        if (key.chain != chain) {
            continue;
        }
        auto found = co_await content_of(store, key);
        EXPECT_TRUE(found.ok());
        EXPECT_TRUE(*found == content)
            << to_string(key) << " differs on target " << store.target().value;
        EXPECT_EQ(seen.contains(key.chunk), content.has_value());
        seen.erase(key.chunk);
    }
    EXPECT_TRUE(seen.empty()) << "chunks nobody wrote on target " << store.target().value;
}

void check_members(ClusterWorld& world, uint64_t chains, const Contents& expected) {
    for (uint64_t node = 1; node <= world.nodes(); ++node) {
        for (uint64_t chain = 1; chain <= chains; ++chain) {
            ASSERT_TRUE(world.run_on(world.storage_node(node),
                                     check_member(world.store(node), ChainId(chain), expected),
                                     kPatience));
        }
    }
}

Task<void> write_some(TestClient& client, Contents& contents) {
    Random random(1);
    for (uint64_t i = 0; i < 20; ++i) {
        ChunkKey key = chunk_on(1 + i % 2, 1, i / 2);
        ChunkWrite change = change_of(pb::WRITE_DATA, 100 * i, random_text(random, 10000));
        apply_to(contents[key], change);
        co_await client.write(key, std::move(change), 7, i % 3 == 0);
        auto read = co_await client.read(key);
        EXPECT_TRUE(read == contents[key]);
    }
}

TEST(ReplicationTest, EveryMemberHasWhatWasWritten) {
    ClusterWorld world(1, 3, 2);
    world.boot();
    Contents contents;

    ASSERT_TRUE(world.run_on(world.client_node(), write_some(world.client(), contents), kPatience));

    check_members(world, 2, contents);
}

TEST(ReplicationTest, MemberThatWasAwayIsBroughtUpToDate) {
    ClusterWorld world(2, 3, 2);
    world.boot();
    Contents contents;
    ASSERT_TRUE(world.run_on(world.client_node(), write_some(world.client(), contents), kPatience));
    world.storage_node(2).cut_power();
    ASSERT_TRUE(world.run_until([&] { return !world.manager().healthy(); }, kPatience));
    ASSERT_TRUE(world.run_on(world.client_node(), write_some(world.client(), contents), kPatience));

    world.storage_node(2).boot();

    ASSERT_TRUE(world.run_until([&] { return world.manager().healthy(); }, kPatience));
    check_members(world, 2, contents);
}

Task<void> remove_some(TestClient& client, Contents& contents) {
    co_await client.remove_data(ChainId(1), DataId(1), 4);
    for (auto& [key, content] : contents) {
        if (key.chain == ChainId(1) && key.chunk.index >= 4) {
            content.reset();
        }
    }
}

TEST(ReplicationTest, RemovedChunksGoFromAllMembers) {
    ClusterWorld world(3, 3, 2);
    world.boot();
    Contents contents;
    ASSERT_TRUE(world.run_on(world.client_node(), write_some(world.client(), contents), kPatience));

    ASSERT_TRUE(
        world.run_on(world.client_node(), remove_some(world.client(), contents), kPatience));

    check_members(world, 2, contents);
}

Task<void> expect_read(TestClient& client, ChunkKey key, std::string expected) {
    for (int i = 0; i < 20; ++i) {
        auto read = co_await client.read(key);
        EXPECT_TRUE(read == expected);
    }
}

Task<void> expect_stored(ChunkStore& store, ChunkKey key, std::string expected) {
    auto found = co_await content_of(store, key);
    EXPECT_TRUE(found.ok()) << "target " << store.target().value << ": "
                            << (found.ok() ? "" : found.error().to_string());
    EXPECT_TRUE(found.ok() && *found == expected);
}

TEST(ReplicationTest, DamagedReplicaIsReadAroundAndRepaired) {
    ClusterWorld world(4, 3, 2);
    world.boot();
    Contents contents;
    ChunkKey key = chunk_on(1, 1, 0);
    ASSERT_TRUE(world.run_on(world.client_node(), write_some(world.client(), contents), kPatience));
    world.run_for(std::chrono::seconds(1));
    for (uint64_t block = 1; block < 40; ++block) {
        world.storage_node(2).disk("t", 0).files().at("slab.000000")->flip_byte(block * 4096 + 9);
    }

    ASSERT_TRUE(world.run_on(world.client_node(),
                             expect_read(world.client(), key, *contents[key]),
                             kPatience));

    world.run_for(std::chrono::seconds(1));
    ASSERT_TRUE(world.run_on(world.storage_node(2),
                             expect_stored(world.store(2), key, *contents[key]),
                             kPatience));
}

void damage(ClusterWorld& world, uint64_t node) {
    for (uint64_t block = 1; block < 200; ++block) {
        auto& slab = *world.storage_node(node).disk("t", 0).files().at("slab.000000");
        slab.flip_byte(block * 4096 + 9);
    }
}

TEST(ReplicationTest, ResyncTakesAChunkThatIsDamagedAtItsSourceFromAnotherMember) {
    ClusterWorld world(5, 3, 2);
    world.boot();
    Contents contents;
    // Written without a sync: its blocks are in the slabs only.
    ChunkKey key = chunk_on(1, 1, 1);
    world.storage_node(3).cut_power();
    ASSERT_TRUE(world.run_until([&] { return !world.manager().healthy(); }, kPatience));
    ASSERT_TRUE(world.run_on(world.client_node(), write_some(world.client(), contents), kPatience));
    world.run_for(std::chrono::seconds(1));
    damage(world, 1);  // The last that serves chain 1.

    world.storage_node(3).boot();

    ASSERT_TRUE(world.run_until([&] { return world.manager().healthy(); }, kPatience));
    for (uint64_t node : {1U, 3U}) {
        ASSERT_TRUE(world.run_on(world.storage_node(node),
                                 expect_stored(world.store(node), key, *contents[key]),
                                 kPatience));
    }
    EXPECT_EQ(world.manager().report(1).damaged_chunks(), 0U);
}

Task<void> write_part(TestClient& client, Contents& contents, ChunkKey key) {
    ChunkWrite change = change_of(pb::WRITE_DATA, 5000, "part of a block");
    apply_to(contents[key], change);
    co_await client.write(key, std::move(change), 9, false);
}

// Part of a block is put between bytes that the second member cannot read.
TEST(ReplicationTest, AWriteOnADamagedBlockOfTheSecondMemberMendsItAndGoesOn) {
    ClusterWorld world(8, 2, 2);
    world.boot();
    Contents contents;
    ChunkKey key = chunk_on(1, 1, 0);
    ASSERT_TRUE(world.run_on(world.client_node(), write_some(world.client(), contents), kPatience));
    world.run_for(std::chrono::seconds(1));
    damage(world, chain_of(world).members(1).target());

    ASSERT_TRUE(
        world.run_on(world.client_node(), write_part(world.client(), contents, key), kPatience));

    world.run_for(std::chrono::seconds(1));
    for (uint64_t node : {1U, 2U}) {
        ASSERT_TRUE(world.run_on(world.storage_node(node),
                                 expect_stored(world.store(node), key, *contents[key]),
                                 kPatience));
    }
}

TEST(ReplicationTest, AChunkThatNobodyHasWholeIsReportedAndNotCopied) {
    ClusterWorld world(6, 3, 2);
    world.boot();
    Contents contents;
    world.storage_node(3).cut_power();
    ASSERT_TRUE(world.run_until([&] { return !world.manager().healthy(); }, kPatience));
    ASSERT_TRUE(world.run_on(world.client_node(), write_some(world.client(), contents), kPatience));
    world.run_for(std::chrono::seconds(1));
    damage(world, 1);
    damage(world, 2);

    world.storage_node(3).boot();

    EXPECT_TRUE(world.run_until([&] { return world.manager().report(2).damaged_chunks() != 0; },
                                kPatience));
    EXPECT_FALSE(world.manager().healthy());
}

Task<void> write_large(TestClient& client, Contents& contents, uint64_t data) {
    for (uint64_t index = 0; index < 8; ++index) {
        ChunkKey key = chunk_on(1, data, index);
        std::string text(1 * MiB, static_cast<char>('a' + index));
        ChunkWrite change = change_of(pb::WRITE_DATA, 0, text);
        co_await client.write(key, std::move(change), 8, false);
        contents[key] = text;
    }
}

TEST(ReplicationTest, AMemberWithoutRoomForWhatItMissedLetsTheOthersGoOn) {
    ClusterWorld world(7, 3, 1);
    world.boot();
    Contents contents;
    world.storage_node(3).kill();
    ASSERT_TRUE(world.run_until([&] { return !world.manager().healthy(); }, kPatience));
    ASSERT_TRUE(
        world.run_on(world.client_node(), write_large(world.client(), contents, 1), kPatience));
    world.set_capacity(3, 4 * MiB);
    world.storage_node(3).boot();
    ASSERT_TRUE(world.run_until([&] { return world.manager().report(3).full(); }, kPatience));

    EXPECT_TRUE(
        world.run_on(world.client_node(), write_large(world.client(), contents, 2), kPatience));

    world.storage_node(3).kill();
    world.set_capacity(3, 64 * MiB);
    world.storage_node(3).boot();
    ASSERT_TRUE(world.run_until([&] { return world.manager().healthy(); }, kPatience));
    check_members(world, 1, contents);
}

// One owner of some chunks: changes them at random and reads them back, whatever happens.
Task<void> own_chunks(TestClient& client, Contents& contents, uint64_t owner, uint64_t seed) {
    Random random(seed);
    for (int step = 0; step < 60; ++step) {
        ChunkKey key = chunk_on(1 + random.below(2), owner, random.below(5));
        uint64_t what = random.below(16);
        if (what == 0) {
            uint64_t from = random.below(5);
            co_await client.remove_data(key.chain, DataId(owner), from);
            for (uint64_t i = from; i < 5; ++i) {
                contents[chunk_on(key.chain.value, owner, i)].reset();
            }
            continue;
        }
        ChunkWrite change;
        if (what == 1) {
            change = change_of(pb::WRITE_REMOVE, 0, "");
        } else if (what == 2 && contents[key]) {
            change = change_of(pb::WRITE_TRUNCATE, random.below(30000), "");
        } else {
            change = change_of(pb::WRITE_DATA,
                               random.below(20000),
                               random_text(random, random.range(1, 20000)));
        }
        apply_to(contents[key], change);
        co_await client.write(key, std::move(change), 100 + owner, random.chance(200000));
        if (random.chance(500000)) {
            auto read = co_await client.read(key);
            EXPECT_TRUE(read == contents[key]) << to_string(key) << " reads what it is not";
        }
    }
}

// Several owners of one chunk, each with bytes of its own.
Task<void> share_chunk(TestClient& client, std::string& part, uint64_t owner, uint64_t seed) {
    Random random(seed);
    ChunkKey key = chunk_on(1, 50, 0);
    uint64_t start = owner * 10000;
    for (int step = 0; step < 60; ++step) {
        uint64_t offset = random.below(9000);
        std::string text = random_text(random, random.range(1, 10000 - offset));
        part.replace(offset, text.size(), text);
        co_await client.write(key,
                              change_of(pb::WRITE_DATA, start + offset, text),
                              200 + owner,
                              false);
        auto read = co_await client.read(key);
        std::string found = read ? *read : "";
        found.resize(std::max<size_t>(found.size(), start + part.size()), '\0');
        EXPECT_TRUE(found.substr(start, part.size()) == part) << "a write of another shows through";
    }
}

Task<void> count_down(Task<void> task, size_t* left) {
    co_await std::move(task);
    --*left;
}

// The shared chunk ends with the last byte anybody wrote.
Task<void> cut_to_stored(ChunkStore& store, std::string* text) {
    auto found = co_await content_of(store, chunk_on(1, 50, 0));
    EXPECT_TRUE(found.ok() && *found);
    if (found.ok() && *found) {
        text->resize(std::min(text->size(), (*found)->size()));
    }
}

void chaos(uint64_t seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    ClusterWorld world(seed, 3, 2);
    world.boot();
    ASSERT_TRUE(world.manager().healthy());
    sim::NetworkFaults& faults = world.shared().network.faults();
    if (random.chance(500000)) {
        faults.stall_ppm = static_cast<uint32_t>(random.below(3000));
        faults.break_ppm = static_cast<uint32_t>(random.below(3000));
        faults.hang_ppm = static_cast<uint32_t>(random.below(300));
        faults.connect_fail_ppm = static_cast<uint32_t>(random.below(100000));
        faults.stall_max = std::chrono::milliseconds(800);
    }
    if (random.chance(500000)) {
        faults.duplicate_ppm = static_cast<uint32_t>(random.below(20000));
        faults.duplicate_delay_max = std::chrono::milliseconds(random.range(1, 1500));
    }
    Contents contents;
    std::vector<std::string> parts(3, std::string(10000, '\0'));
    size_t running = 6;
    for (uint64_t owner = 0; owner < 3; ++owner) {
        world.client_node().spawn(
            count_down(own_chunks(world.client(), contents, 1 + owner, random.u64()), &running));
        world.client_node().spawn(
            count_down(share_chunk(world.client(), parts[owner], owner, random.u64()), &running));
    }
    for (int round = 0; round < 12; ++round) {
        world.run_for(std::chrono::milliseconds(random.range(1, 700)));
        uint64_t node = random.range(1, world.nodes());
        sim::SimNode& victim = world.storage_node(node);
        if (!victim.running()) {
            victim.boot();
        } else if (world.can_lose(node)) {
            random.chance(500000) ? victim.kill() : victim.cut_power();
            if (random.chance(500000)) {
                victim.boot();
            }
        }
    }
    faults = sim::NetworkFaults();
    for (uint64_t node = 1; node <= world.nodes(); ++node) {
        if (!world.storage_node(node).running()) {
            world.storage_node(node).boot();
        }
    }
    ASSERT_TRUE(world.run_until([&] { return running == 0; }, kPatience))
        << "no progress: " << world.client().last_error().to_string();
    ASSERT_TRUE(world.run_until([&] { return world.manager().healthy(); }, kPatience))
        << "not brought up to date";
    world.run_for(std::chrono::seconds(3));
    contents[chunk_on(1, 50, 0)] = parts[0] + parts[1] + parts[2];
    std::string& shared = *contents[chunk_on(1, 50, 0)];
    ASSERT_TRUE(
        world.run_on(world.storage_node(1), cut_to_stored(world.store(1), &shared), kPatience));
    check_members(world, 2, contents);
}

TEST(ReplicationTest, KilledMembersAndBadNetworkLoseNothing) {
    for (uint64_t seed = seed_first(); seed <= seed_count(6) && !HasFailure(); ++seed) {
        chaos(seed);
    }
}

Task<void> write_on_one(TestClient& client, Contents& contents) {
    Random random(1);
    for (uint64_t i = 0; i < 200; ++i) {
        ChunkKey key = chunk_on(1, 1, i);
        ChunkWrite change = change_of(pb::WRITE_DATA, 0, random_text(random, 4000));
        apply_to(contents[key], change);
        co_await client.write(key, std::move(change), 7, false);
    }
}

// Sends one request to a storage daemon and gives the code of its answer; none for success.
Task<void> send_to(Env* env, std::string address, RpcCall call, std::optional<Errc>* out) {
    RpcChannel channel(*env, std::move(address), ChannelKind::kData);
    auto reply = co_await channel.call(std::move(call));
    *out = reply.ok() ? std::nullopt : std::optional(reply.error().code);
    co_await channel.stop();
}

std::optional<Errc> ask(ClusterWorld& world,
                        uint64_t node,
                        MessageType type,
                        Buffer body,
                        BufferChain payload = BufferChain()) {
    std::optional<Errc> code;
    std::string address;
    for (const pb::Node& one : world.manager().map().nodes()) {
        address = one.id() == node ? one.address() : address;
    }
    Env& env = world.client_node().env();
    RpcCall call(type, std::move(body), std::move(payload), env.now() + std::chrono::seconds(5));
    EXPECT_TRUE(world.run_on(world.client_node(),
                             send_to(&env, address, std::move(call), &code),
                             kPatience));
    return code;
}

pb::WriteRequest removal(ClusterWorld& world) {
    pb::WriteRequest message;
    message.set_chain(chain_of(world).id());
    message.set_chain_version(chain_of(world).version());
    message.mutable_chunk()->set_data(1);
    message.set_kind(pb::WRITE_REMOVE);
    message.set_session(7);
    message.set_write_id(1);
    return message;
}

TEST(ReplicationTest, OnlyTheHeadTakesClientsWrites) {
    ClusterWorld world(1, 3, 1);
    world.boot();
    uint64_t head = head_of(chain_of(world)).value;

    for (uint64_t node = 1; node <= world.nodes(); ++node) {
        auto code = ask(world, node, MessageType::kWrite, encode(removal(world)));
        EXPECT_EQ(code, node == head ? std::nullopt : std::optional(Errc::kNotServing));
    }
    pb::WriteRequest forwarded = removal(world);
    forwarded.set_forwarded(true);
    forwarded.set_target(head);
    EXPECT_EQ(ask(world, head, MessageType::kWrite, encode(forwarded)), Errc::kNotServing);
}

// One chunk of 1 MiB, as a client sends it.
std::optional<Errc> ask_large(ClusterWorld& world, uint64_t index, uint64_t write_id) {
    ChunkWrite change = change_of(pb::WRITE_DATA, 0, std::string(1 * MiB, 'x'));
    pb::WriteRequest message = removal(world);
    message.mutable_chunk()->set_index(index);
    message.set_kind(pb::WRITE_DATA);
    message.set_checksums(pack_sums(change.sums));
    message.set_write_id(write_id);
    uint64_t head = head_of(chain_of(world)).value;
    return ask(world, head, MessageType::kWrite, encode(message), change.data);
}

TEST(ReplicationTest, AWriteThatWasRefusedForWantOfRoomStaysRefused) {
    ClusterWorld world(9, 3, 1);
    for (uint64_t node = 1; node <= world.nodes(); ++node) {
        world.set_capacity(node, 4 * MiB);
    }
    world.boot();
    uint64_t index = 0;
    while (index < 8 && !ask_large(world, index, 1)) {
        ++index;
    }
    ASSERT_LT(index, 8U);
    ASSERT_TRUE(world.run_on(world.client_node(),
                             world.client().remove_data(ChainId(1), DataId(1), 0),
                             kPatience));
    world.run_for(std::chrono::seconds(1));

    auto again = ask_large(world, index, 1);
    auto next = ask_large(world, index, 2);

    EXPECT_EQ(again, Errc::kNoSpace);
    EXPECT_EQ(next, std::nullopt);
}

TEST(ReplicationTest, ATruncationThatFoundNoChunkDoesNotCutOneThatWasMadeSince) {
    ClusterWorld world(1, 2, 1);
    world.boot();
    uint64_t head = head_of(chain_of(world)).value;
    pb::WriteRequest truncation = removal(world);
    truncation.set_kind(pb::WRITE_TRUNCATE);
    truncation.set_offset(1);
    truncation.set_session(8);
    EXPECT_EQ(ask(world, head, MessageType::kWrite, encode(truncation)), std::nullopt);
    EXPECT_EQ(ask(world, head, MessageType::kWrite, encode(truncation)), std::nullopt);
    Contents contents;
    ASSERT_TRUE(
        world.run_on(world.client_node(), write_on_one(world.client(), contents), kPatience));

    EXPECT_EQ(ask(world, head, MessageType::kWrite, encode(truncation)), std::nullopt);
    check_members(world, 1, contents);
}

TEST(ReplicationTest, ARequestOfAnotherChainVersionIsRefused) {
    ClusterWorld world(1, 2, 1);
    world.boot();
    uint64_t head = head_of(chain_of(world)).value;
    pb::ReadRequest read;
    read.set_chain(chain_of(world).id());
    read.mutable_chunk()->set_data(1);
    for (uint64_t off : {0, 1}) {
        uint64_t version = chain_of(world).version() + off;
        pb::WriteRequest write = removal(world);
        write.set_chain_version(version);
        read.set_chain_version(version);
        auto expected = off == 0 ? std::nullopt : std::optional(Errc::kStaleMap);
        EXPECT_EQ(ask(world, head, MessageType::kWrite, encode(write)), expected);
        EXPECT_EQ(ask(world, head, MessageType::kRead, encode(read)), expected);
    }
}

TEST(ReplicationTest, AMemberAnswersReadsOnlyOnceItServes) {
    ClusterWorld world(1, 2, 1);
    world.boot();
    world.storage_node(2).kill();
    ASSERT_TRUE(world.run_until([&] { return !world.manager().healthy(); }, kPatience));
    Contents contents;
    ASSERT_TRUE(
        world.run_on(world.client_node(), write_on_one(world.client(), contents), kPatience));
    world.storage_node(2).boot();

    pb::ReadRequest read;
    read.set_chain(chain_of(world).id());
    read.mutable_chunk()->set_data(1);
    bool served = false;
    for (int asked = 0; asked < 1000 && !served; ++asked) {
        read.set_chain_version(chain_of(world).version());
        served = !ask(world, 2, MessageType::kRead, encode(read)).has_value();
        EXPECT_TRUE(!served || world.manager().healthy());
    }
    EXPECT_TRUE(served);
}

// Who is cut off from the manager stops before the manager gives its place away.
TEST(ReplicationTest, AMemberWithoutContactToTheManagerStopsWhileItStillHasItsPlace) {
    ClusterWorld world(1, 2, 1);
    world.boot();
    pb::ReadRequest read;
    read.set_chain(chain_of(world).id());
    read.mutable_chunk()->set_data(1);
    read.set_chain_version(chain_of(world).version());
    ASSERT_EQ(ask(world, 1, MessageType::kRead, encode(read)), std::nullopt);

    world.shared().network.set_blocked(world.manager_node().machine(),
                                       world.storage_node(1).machine(),
                                       true);
    world.run_for(kTestLease / 2);

    EXPECT_EQ(ask(world, 1, MessageType::kRead, encode(read)), Errc::kNotServing);
    EXPECT_TRUE(world.manager().healthy());
}

}  // namespace
}  // namespace kdfs::storage
