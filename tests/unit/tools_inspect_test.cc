#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/wire.h"
#include "kdfs/rt/frame.h"
#include "mds/schema.h"
#include "storage/chunk_record.h"
#include "tools/fsck.h"
#include "tools/inspect.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

namespace kdfs::tools {
namespace {

std::string captured_frame() {
    pb::HeartbeatRequest request;
    request.set_name("storage-1");
    Frame frame;
    frame.header.type = static_cast<uint16_t>(MessageType::kHeartbeat);
    frame.header.request_id = 5;
    frame.body = encode(request);
    FrameBytes header = encode_header(frame);
    std::string bytes(reinterpret_cast<const char*>(header.data()), header.size());
    return bytes + request.SerializeAsString();
}

TEST(InspectTest, AFrameIsShownWithItsBody) {
    std::string bytes = captured_frame();
    size_t used = 0;

    Result<std::string> text = frame_text(bytes + "next", used);

    ASSERT_TRUE(text.ok()) << text.error().to_string();
    EXPECT_EQ(used, bytes.size());
    EXPECT_NE(text->find("frame Heartbeat (type 1), request"), std::string::npos);
    EXPECT_NE(text->find("name: \"storage-1\""), std::string::npos);
}

TEST(InspectTest, AnyDamageToAFrameIsAnErrorOrAnotherText) {
    std::string bytes = captured_frame();
    size_t used = 0;
    for (size_t length = 0; length < bytes.size(); ++length) {
        EXPECT_FALSE(frame_text(bytes.substr(0, length), used).ok()) << length;
    }
    for (size_t i = 0; i < bytes.size(); ++i) {
        std::string damaged = bytes;
        damaged[i] = static_cast<char>(damaged[i] ^ 0x40);
        Result<std::string> text = frame_text(damaged, used);
        EXPECT_TRUE(!text.ok() || *text != *frame_text(bytes, used)) << i;
    }
}

TEST(InspectTest, MetadataRecordsAreDecodedAndRubbishIsNot) {
    mds::Dentry dentry;
    dentry.ino = InodeId(77);
    dentry.mode = S_IFREG;
    std::string key = mds::dentry_key(InodeId(1), "letter");

    Result<std::string> text = meta_record_text(key, mds::encode(dentry));

    ASSERT_TRUE(text.ok()) << text.error().to_string();
    EXPECT_NE(text->find("letter"), std::string::npos);
    EXPECT_NE(text->find("inode 77"), std::string::npos);
    EXPECT_FALSE(meta_record_text("", "x").ok());
    EXPECT_FALSE(meta_record_text("?", "x").ok());
    EXPECT_FALSE(meta_record_text(key, "").ok());
    EXPECT_FALSE(meta_record_text(mds::inode_key(InodeId(1)), "rubbish").ok());
}

TEST(InspectTest, ChunkRecordsAreDecodedAndRubbishIsNot) {
    storage::ChunkRecord record;
    record.version = ChunkVersion(3);
    record.length = 10;
    record.blocks = {storage::kHole};
    record.sums = {storage::zeros_checksum(10)};
    storage::ChunkKey key;
    key.chain = ChainId(7);
    key.chunk.data = DataId(0x1f);

    Result<std::string> text =
        chunk_record_text(storage::record_key(key), storage::encode_record(record));

    ASSERT_TRUE(text.ok()) << text.error().to_string();
    EXPECT_NE(text->find("chain 7 chunk 1f.0"), std::string::npos);
    EXPECT_NE(text->find("version 3, 10 bytes"), std::string::npos);
    EXPECT_NE(text->find("block 0 hole"), std::string::npos);
    EXPECT_FALSE(chunk_record_text(storage::record_key(key), "rubbish").ok());
    EXPECT_FALSE(chunk_record_text("", "").ok());
}

TEST(InspectTest, HexIsReadWithSpacesAndRefusedOtherwise) {
    EXPECT_EQ(*parse_hex("00 fF\n1a"), std::string("\x00\xff\x1a", 3));
    EXPECT_FALSE(parse_hex("0g").ok());
    EXPECT_FALSE(parse_hex("123").ok());
    EXPECT_EQ(bytes_text("ab\n", 2), "61 62 |ab| and 1 bytes more");
}

pb::ChunkEntry entry(uint64_t data, uint64_t index, uint64_t version) {
    pb::ChunkEntry out;
    out.mutable_chunk()->set_data(data);
    out.mutable_chunk()->set_index(index);
    out.set_version(version);
    return out;
}

TEST(FsckTest, ChunksOfAllMembersAreMergedInKeyOrder) {
    std::vector<MemberPage> pages(2);
    pages[0].target = 1;
    pages[0].entries = {entry(5, 0, 1), entry(5, 2, 4)};
    pages[1].target = 2;
    pages[1].entries = {entry(5, 0, 1), entry(5, 1, 9), entry(5, 2, 5)};
    std::vector<ChunkSight> seen;
    for (ChunkSight sight; next_chunk(7, pages, sight);) {
        seen.push_back(sight);
    }

    ASSERT_EQ(seen.size(), 3U);
    EXPECT_TRUE(seen[0].equal());
    EXPECT_FALSE(seen[1].equal());
    EXPECT_EQ(describe_difference(seen[1]),
              "chunk 5.1 of chain 7 differs between its copies: t1 has none, t2 has version 9 of 0 "
              "bytes");
    EXPECT_FALSE(seen[2].equal());
}

TEST(FsckTest, OnlyDataBelowTheHighestKnownCanBeWithoutOwner) {
    std::vector<mds::OwnedData> owned(2);
    owned[0].data = DataId(4);
    owned[1].data = DataId(9);
    ChunkOwners owners(owned);

    EXPECT_TRUE(owners.owned(DataId(4)));
    EXPECT_FALSE(owners.owned(DataId(5)));
    EXPECT_TRUE(owners.owned(DataId(9)));
    EXPECT_TRUE(owners.owned(DataId(10)));
}

}  // namespace
}  // namespace kdfs::tools
