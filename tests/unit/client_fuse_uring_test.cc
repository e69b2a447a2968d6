#include "client/fuse_uring_entries.h"
#include "client/fuse_uring_message.h"
#include "kdfs/base/random.h"

#include <gtest/gtest.h>
#include <linux/fuse.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace kdfs::client {
namespace {

// The memory of an entry, with nothing accessible behind it under ASan.
class Entry {
public:
    explicit Entry(size_t payload_bytes)
        : bytes_(RingMemory::kHeaderPageBytes + payload_bytes), payload_bytes_(payload_bytes) {}

    RingMemory memory() { return {bytes_.data(), payload_bytes_}; }

    void put(uint32_t length, uint64_t unique, const std::string& argument, std::string payload) {
        fuse_in_header in{};
        in.len = length;
        in.opcode = FUSE_WRITE;
        in.unique = unique;
        uring_abi::RequestHeader& header = memory().header();
        std::memcpy(header.in_out, &in, sizeof in);
        std::memcpy(header.op_in, argument.data(), argument.size());
        std::memcpy(memory().payload(), payload.data(), payload.size());
        header.entry.commit_id = unique + 1000;
        header.entry.payload_bytes = static_cast<uint32_t>(payload.size());
    }

private:
    std::vector<std::byte> bytes_;
    size_t payload_bytes_;
};

std::string text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(FuseUringMessageTest, RequestsLieAsTheDeviceGivesThem) {
    for (size_t argument_bytes : {0u, 8u, 40u, 88u, 128u}) {
        Entry entry(8192);
        std::string argument(argument_bytes, 'a');
        std::string payload = "name and another";
        auto length = static_cast<uint32_t>(40 + argument.size() + payload.size());
        entry.put(length, 7, argument, payload);

        Result<std::span<std::byte>> message = assemble_request(entry.memory());

        ASSERT_TRUE(message.ok()) << message.error().to_string();
        EXPECT_EQ(message->size(), length);
        EXPECT_EQ(text_of(*message).substr(40), argument + payload);
        EXPECT_EQ(request_ids(entry.memory()).unique, 7u);
        EXPECT_EQ(request_ids(entry.memory()).commit_id, 1007u);
    }
}

TEST(FuseUringMessageTest, ThePayloadOfAWriteStaysWhereItIs) {
    Entry entry(1 << 20);
    entry.put(80 + 4096, 1, std::string(40, 'w'), std::string(4096, 'x'));

    Result<std::span<std::byte>> message = assemble_request(entry.memory());

    ASSERT_TRUE(message.ok());
    EXPECT_EQ(message->data() + 80, entry.memory().payload());
}

TEST(FuseUringMessageTest, SizesThatContradictEachOtherAreRefused) {
    Entry entry(8192);
    entry.put(40, 1, "", "");
    entry.memory().header().entry.payload_bytes = 8193;
    EXPECT_EQ(assemble_request(entry.memory()).error().code, Errc::kMalformed);
    for (uint32_t length : {0u, 39u, 40u + 5u, 40u + 136u, 0xffffffffu}) {
        entry.put(length, 1, "", "");
        EXPECT_EQ(assemble_request(entry.memory()).error().code, Errc::kMalformed) << length;
    }
}

TEST(FuseUringMessageTest, NoHeaderLeadsOutOfTheMemory) {
    Random random(11);
    Entry entry(4096);
    for (int round = 0; round < 20000; ++round) {
        uring_abi::RequestHeader& header = entry.memory().header();
        auto length = static_cast<uint32_t>(random.below(random.below(2) == 0 ? 5000 : 1ull << 32));
        std::memcpy(header.in_out, &length, sizeof length);
        header.entry.payload_bytes =
            static_cast<uint32_t>(random.below(random.below(2) == 0 ? 5000 : 1ull << 32));

        Result<std::span<std::byte>> message = assemble_request(entry.memory());

        if (message.ok()) {
            EXPECT_EQ(message->size(), length);
            EXPECT_LE(message->data() + message->size(), entry.memory().payload() + 4096);
            EXPECT_GE(message->data(), entry.memory().page + sizeof(uring_abi::RequestHeader));
        }
    }
}

std::vector<iovec> parts_of(std::vector<std::string>& pieces) {
    std::vector<iovec> parts;
    parts.reserve(pieces.size());
    for (std::string& piece : pieces) {
        parts.push_back({piece.data(), piece.size()});
    }
    return parts;
}

TEST(FuseUringMessageTest, RepliesAreSplitIntoHeaderAndPayload) {
    Entry entry(4096);
    std::vector<std::string> pieces = {std::string(16, 'h') + "first", "", " and second"};

    ASSERT_TRUE(place_reply(entry.memory(), parts_of(pieces)).ok());

    uring_abi::RequestHeader& header = entry.memory().header();
    EXPECT_EQ(std::string(header.in_out, 16), std::string(16, 'h'));
    EXPECT_EQ(header.entry.payload_bytes, 16u);
    EXPECT_EQ(text_of({entry.memory().payload(), 16}), "first and second");
}

TEST(FuseUringMessageTest, RepliesThatDoNotFitAreRefused) {
    Entry entry(4096);
    std::vector<std::string> just = {std::string(16, 'h'), std::string(4096, 'p')};
    std::vector<std::string> over = {std::string(16, 'h'), std::string(4090, 'p'), "1234567"};
    std::vector<std::string> headless = {std::string(15, 'h')};

    EXPECT_TRUE(place_reply(entry.memory(), parts_of(just)).ok());
    EXPECT_EQ(place_reply(entry.memory(), parts_of(over)).error().code, Errc::kTooBig);
    EXPECT_EQ(place_reply(entry.memory(), parts_of(headless)).error().code, Errc::kMalformed);
    EXPECT_EQ(place_reply(entry.memory(), {}).error().code, Errc::kMalformed);

    place_error(entry.memory(), 9, EIO);
    fuse_out_header out{};
    std::memcpy(&out, entry.memory().header().in_out, sizeof out);
    EXPECT_EQ(out.error, -EIO);
    EXPECT_EQ(out.unique, 9u);
    EXPECT_EQ(entry.memory().header().entry.payload_bytes, 0u);
}

TEST(FuseUringMessageTest, AnOfferInInitIsSeenAndAccepted) {
    struct {
        fuse_in_header header{};
        fuse_init_in init{};
    } request;
    request.header.opcode = FUSE_INIT;
    std::span<const std::byte> bytes = std::as_bytes(std::span(&request, 1));
    EXPECT_FALSE(init_offers_uring(bytes));
    request.init.flags2 = 1u << 9;
    EXPECT_FALSE(init_offers_uring(bytes)) << "without FUSE_INIT_EXT there are no second flags";
    request.init.flags = FUSE_INIT_EXT;
    EXPECT_TRUE(init_offers_uring(bytes));
    EXPECT_FALSE(init_offers_uring(bytes.first(bytes.size() - 1)));
    request.header.opcode = FUSE_LOOKUP;
    EXPECT_FALSE(init_offers_uring(bytes));

    fuse_init_out reply{};
    reply.max_write = 1 << 20;
    reply.flags2 = 0xffff;  // not meant, since there is no FUSE_INIT_EXT
    std::span<std::byte> body = std::as_writable_bytes(std::span(&reply, 1));
    EXPECT_FALSE(accept_uring(body.first(24)));
    EXPECT_TRUE(accept_uring(body));
    EXPECT_EQ(reply.flags, FUSE_INIT_EXT);
    EXPECT_EQ(reply.flags2, 1u << 9);
    EXPECT_EQ(reply.max_write, 1u << 20);
}

TEST(FuseUringMessageTest, CpuListsAreCounted) {
    EXPECT_EQ(*count_cpus("0\n"), 1u);
    EXPECT_EQ(*count_cpus("0-3,8,10-11"), 7u);
    for (const char* bad : {"", "x", "0-", "3-1", "0,,1", "0-3;", "0-99999999", "0-4095,5000"}) {
        EXPECT_FALSE(count_cpus(bad).ok()) << bad;
    }
}

TEST(FuseUringMessageTest, DepthFollowsTheMemoryThatAllQueuesMayTake) {
    EXPECT_EQ(ring_shape(2, 1 << 20).depth, RingShape::kDepthMax);
    EXPECT_EQ(ring_shape(32, 1 << 20).depth, 8u);
    EXPECT_EQ(ring_shape(1000, 1 << 20).depth, RingShape::kDepthMin);
    EXPECT_EQ(ring_shape(1000, 1 << 20).entries(), 4000u);
}

TEST(RingEntriesTest, AnEntryHasOneRequestUntilItsAnswer) {
    RingEntries entries(2, 2);

    EXPECT_TRUE(entries.arrived(3, 10, 110));
    EXPECT_FALSE(entries.arrived(3, 12, 112)) << "it has one";
    EXPECT_FALSE(entries.arrived(1, 10, 110)) << "another one has the same";
    EXPECT_FALSE(entries.arrived(4, 14, 114)) << "there is none";
    EXPECT_EQ(entries.queue_of(3), 1);

    auto answered = entries.answer(10);
    ASSERT_TRUE(answered.has_value());
    EXPECT_EQ(answered->entry, 3u);
    EXPECT_EQ(answered->commit_id, 110u);
    EXPECT_FALSE(entries.answer(10).has_value());
    EXPECT_TRUE(entries.arrived(3, 12, 112));
}

TEST(RingEntriesTest, LostEntriesAreNotUsedAgain) {
    RingEntries entries(2, 2);
    ASSERT_TRUE(entries.arrived(0, 5, 5));
    EXPECT_TRUE(entries.complete());

    entries.lost(0);
    entries.lost(0);
    entries.lost(99);
    EXPECT_EQ(entries.live(), 3u);
    EXPECT_EQ(entries.waiting(), 0u);
    EXPECT_FALSE(entries.answer(5).has_value());
    EXPECT_FALSE(entries.arrived(0, 6, 6));
    EXPECT_TRUE(entries.complete());
    entries.lost(1);
    EXPECT_FALSE(entries.complete()) << "no entry is left for the first CPU";
}

TEST(RingEntriesTest, AnyOrderOfAnswersFindsTheRightEntry) {
    Random random(5);
    RingEntries entries(4, 16);
    std::map<uint64_t, uint32_t> model;
    std::vector<bool> used(64);
    for (int step = 0; step < 20000; ++step) {
        uint64_t unique = random.below(200);
        if (random.below(2) == 0) {
            auto entry = static_cast<uint32_t>(random.below(64));
            bool can = !used[entry] && !model.contains(unique);
            ASSERT_EQ(entries.arrived(entry, unique, unique), can);
            if (can) {
                model[unique] = entry;
                used[entry] = true;
            }
        } else {
            auto answered = entries.answer(unique);
            ASSERT_EQ(answered.has_value(), model.contains(unique));
            if (answered) {
                ASSERT_EQ(answered->entry, model[unique]);
                used[answered->entry] = false;
                model.erase(unique);
            }
        }
        ASSERT_EQ(entries.waiting(), model.size());
    }
}

}  // namespace
}  // namespace kdfs::client
