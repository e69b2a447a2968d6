#include "kdfs/base/checksum.h"
#include "storage/chunk_record.h"
#include "storage/redo_entry.h"

#include <gtest/gtest.h>

namespace kdfs::storage {
namespace {

ChunkRecord sample() {
    ChunkRecord record;
    record.version = ChunkVersion(9);
    record.length = 3 * kBlockBytes + 5;
    record.seq = 77;
    record.blocks = {10, 11, kHole, 4096};
    record.sums = {1, 2, 3, 4};
    record.remember(RecentWrite{SessionId(5), 6, ChunkVersion(8)});
    record.remember(RecentWrite{SessionId(7), 1, ChunkVersion(9)});
    return record;
}

TEST(ChunkRecordTest, ReadsWhatItWrote) {
    ChunkRecord record = sample();

    auto decoded = decode_record(encode_record(record));

    ASSERT_TRUE(decoded.ok());
    EXPECT_EQ(decoded->version, record.version);
    EXPECT_EQ(decoded->length, record.length);
    EXPECT_EQ(decoded->seq, record.seq);
    EXPECT_EQ(decoded->blocks, record.blocks);
    EXPECT_EQ(decoded->sums, record.sums);
    EXPECT_EQ(decoded->recent, record.recent);
}

TEST(ChunkRecordTest, BytesAreFixed) {
    std::string bytes = encode_record(sample());

    // Head 24, runs 4 + 3 * 12, recent 2 * 24, sums 4 * 8, checksum 8.
    ASSERT_EQ(bytes.size(), 152u);
    EXPECT_EQ(bytes.substr(0, 8), std::string("\1\2\0\0\5\x30\0\0", 8));
    EXPECT_EQ(bytes.substr(24, 16), std::string("\3\0\0\0\12\0\0\0\0\0\0\0\2\0\0\0", 16));
}

TEST(ChunkRecordTest, AnyDamageIsAnError) {
    std::string bytes = encode_record(sample());
    for (size_t size = 0; size < bytes.size(); ++size) {
        EXPECT_FALSE(decode_record(std::string_view(bytes).substr(0, size)).ok());
    }
    for (size_t at = 0; at < bytes.size(); ++at) {
        std::string damaged = bytes;
        damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
        EXPECT_FALSE(decode_record(damaged).ok()) << at;
    }
    EXPECT_FALSE(decode_record(bytes + "x").ok());
}

// A record whose own checksum is right but whose fields are not.
TEST(ChunkRecordTest, ImpossibleFieldsAreErrors) {
    for (size_t at = 0; at < 64; ++at) {
        std::string bytes = encode_record(sample());
        bytes.resize(bytes.size() - 8);
        bytes[at] = static_cast<char>(0xff);
        uint64_t sum = checksum(std::string_view(bytes));
        bytes.append(reinterpret_cast<const char*>(&sum), sizeof sum);
        auto decoded = decode_record(bytes);
        if (decoded.ok()) {
            EXPECT_EQ(decoded->blocks.size(), blocks_of(decoded->length)) << at;
        }
    }
}

TEST(ChunkRecordTest, RemembersTheLastWriteOfEightSessions) {
    ChunkRecord record;
    for (uint64_t i = 1; i <= 10; ++i) {
        record.remember(RecentWrite{SessionId(i), 1, ChunkVersion(i)});
    }
    record.remember(RecentWrite{SessionId(4), 2, ChunkVersion(11)});

    EXPECT_EQ(record.recent.size(), ChunkRecord::kRecentMax);
    EXPECT_EQ(record.find_recent(SessionId(2)), nullptr);
    EXPECT_EQ(record.find_recent(SessionId(4))->write_id, 2u);
    EXPECT_EQ(record.recent.back().session, SessionId(4));
}

TEST(ChunkRecordTest, ExtentsEndWithTheSlab) {
    ChunkRecord record;
    record.blocks = {62, 63, 64, kHole, 65, 70};

    std::vector<Extent> extents = record.extents(64);

    // 64 and 65 follow each other on disk, so the hole between them does not cut the run.
    std::vector<Extent> joined{{62, 2}, {64, 2}, {70, 1}};
    EXPECT_EQ(extents, joined);
}

TEST(ChunkRecordTest, KeysSortByChainThenFileThenIndex) {
    ChunkKey low{ChainId(1), ChunkId{DataId(500), 9}};
    ChunkKey mid{ChainId(2), ChunkId{DataId(3), 1}};
    ChunkKey high{ChainId(2), ChunkId{DataId(3), 256}};

    EXPECT_LT(record_key(low), record_key(mid));
    EXPECT_LT(record_key(mid), record_key(high));
    EXPECT_EQ(*decode_key(record_key(high)), high);
    EXPECT_EQ(*decode_key(fallback_key(high, 12)), high);
    EXPECT_FALSE(decode_key("Cshort").ok());
    EXPECT_FALSE(decode_key(record_key(high) + "x").ok());
}

std::vector<BlockWrite> sample_writes() {
    BlockWrite whole;
    whole.extent = {7, 2};
    whole.data.append(Buffer::copy_of(std::string(5000, 'a')));
    whole.data.append(Buffer::copy_of(std::string(2 * kBlockBytes - 5000, 'b')));
    BlockWrite tail;
    tail.extent = {4096, 1};
    tail.data.append(Buffer::copy_of(std::string("short")));
    return {whole, tail};
}

TEST(RedoEntryTest, ReadsWhatItWrote) {
    std::vector<BlockWrite> writes = sample_writes();

    auto decoded = decode_redo(encode_redo(writes));

    ASSERT_TRUE(decoded.ok());
    ASSERT_EQ(decoded->size(), 2u);
    for (size_t i = 0; i < 2; ++i) {
        EXPECT_EQ((*decoded)[i].extent, writes[i].extent);
        EXPECT_EQ((*decoded)[i].data.flatten().view(), writes[i].data.flatten().view());
    }
    auto seq = decode_redo_key(redo_key(77));
    ASSERT_TRUE(seq.ok());
    EXPECT_EQ(*seq, 77u);
    EXPECT_FALSE(decode_redo_key(record_key(ChunkKey())).ok());
    EXPECT_LT(redo_key(255), redo_key(256));
}

TEST(RedoEntryTest, AnyDamageIsAnError) {
    std::string bytes = encode_redo(sample_writes());
    for (size_t size = 0; size < bytes.size(); size += 37) {
        EXPECT_FALSE(decode_redo(std::string_view(bytes).substr(0, size)).ok());
    }
    for (size_t at = 0; at < bytes.size(); at += at < 64 ? 1 : 37) {
        std::string damaged = bytes;
        damaged[at] = static_cast<char>(damaged[at] ^ 4);
        EXPECT_FALSE(decode_redo(damaged).ok()) << "byte " << at;
    }
}

}  // namespace
}  // namespace kdfs::storage
