// The worked examples of docs/formats.md: every block fenced as ```hex NAME is what the code makes.

#include "kdfs/proto/layout.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/wire.h"
#include "kdfs/rt/cluster_key.h"
#include "kdfs/rt/frame.h"
#include "kdfs/rt/frame_seal.h"
#include "kdfs/rt/tcp_handshake.h"
#include "mds/schema.h"
#include "mds/sessions.h"
#include "storage/chunk_record.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>
#include <string_view>

namespace kdfs {
namespace {

// Lower-case hex, 16 bytes a line.
std::string hex(std::string_view bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    for (size_t i = 0; i < bytes.size(); ++i) {
        auto byte = static_cast<unsigned char>(bytes[i]);
        out += i == 0 ? "" : i % 16 == 0 ? "\n" : " ";
        out += kDigits[byte >> 4];
        out += kDigits[byte & 15];
    }
    return out;
}

// Blocks by name, without what follows a '#' in a line.
std::map<std::string, std::string> documented() {
    std::map<std::string, std::string> out;
    std::ifstream in(KDFS_FORMATS_DOCUMENT);
    std::string line;
    std::string name;
    while (std::getline(in, line)) {
        if (line.starts_with("```")) {
            name = line.starts_with("```hex ") ? line.substr(7) : "";
            continue;
        }
        if (name.empty()) {
            continue;
        }
        line.resize(std::min(line.size(), line.find('#')));
        for (char c : line) {
            if (c != ' ') {
                out[name] += c;
            }
        }
    }
    return out;
}

std::string without_spaces(std::string text) {
    std::erase_if(text, [](char c) { return c == ' ' || c == '\n'; });
    return text;
}

void expect_documented(const std::string& name, std::string_view bytes) {
    EXPECT_EQ(documented()[name], without_spaces(hex(bytes))) << name << " is in the code\n"
                                                              << hex(bytes);
}

std::string text_of(const FrameBytes& bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Frame get_map_request() {
    pb::GetMapRequest request;
    request.set_newer_than(1);
    Frame frame;
    frame.header.type = static_cast<uint16_t>(MessageType::kGetMap);
    frame.header.request_id = 1;
    frame.header.deadline_ms = 2000;
    frame.body = encode(request);
    return frame;
}

pb::Layout layout() {
    pb::Layout out;
    out.set_chunk_bytes(4 * MiB);
    out.set_width(3);
    out.set_table(2);
    out.set_seed(95);
    out.set_replicas(2);
    return out;
}

TEST(FormatsDocument, FrameHeader) {
    Frame frame = get_map_request();
    expect_documented("frame-header", text_of(encode_header(frame)));
}

TEST(FormatsDocument, FrameHeaderUnderAKey) {
    Frame frame = get_map_request();
    FrameBytes bytes = encode_header(frame);
    FrameSeal::Keys keys;
    for (size_t i = 0; i < keys.send.size(); ++i) {
        keys.send[i] = static_cast<std::byte>(i);
    }
    FrameSeal seal(keys);
    seal.seal(bytes);
    expect_documented("frame-header-keyed", text_of(bytes).substr(FrameHeader::kSealedBytes));
}

TEST(FormatsDocument, Hello) {
    Hello hello;
    hello.version = FrameHeader::kVersion;
    hello.kind = ChannelKind::kData;
    hello.cluster_id = "c0ffee";
    hello.self.role = PeerRole::kStorage;
    hello.self.node = NodeId(2);
    hello.self.name = "storage n2";
    expect_documented("hello", encode_hello(hello));
    EXPECT_EQ(encode_identity("c0ffee", hello.self), "c0ffee:2:2:storage n2");
}

TEST(FormatsDocument, MetadataRecords) {
    mds::Dentry dentry;
    dentry.ino = InodeId(0x12);
    dentry.mode = 0100000;
    expect_documented("dentry-key", mds::dentry_key(kRootInode, "a.txt"));
    expect_documented("dentry", mds::encode(dentry));
    mds::Inode inode;
    inode.ino = InodeId(0x12);
    inode.mode = 0100644;
    inode.nlink = 1;
    inode.uid = 1000;
    inode.gid = 1000;
    inode.size = 5;
    inode.atime = inode.mtime = inode.ctime = 1000000000;
    inode.change = 3;
    inode.data = DataId(0x13);
    inode.layout = layout();
    expect_documented("inode-key", mds::inode_key(inode.ino));
    expect_documented("inode", mds::encode(inode));
    mds::Session session;
    session.id = SessionId(7);
    session.name = "h:1 /kdfs";
    session.node_name = "n1";
    expect_documented("session-key", mds::Sessions::key(session.id));
    expect_documented("session", mds::Sessions::encode(session));
}

TEST(FormatsDocument, ChunkRecord) {
    storage::ChunkKey key{ChainId(7), ChunkId{DataId(0x13), 1}};
    storage::ChunkRecord record;
    record.version = ChunkVersion(2);
    record.length = kBlockBytes + 5;
    record.seq = 9;
    record.blocks = {100, 101};
    record.sums = {1, 2};
    record.remember(storage::RecentWrite{SessionId(7), 4, ChunkVersion(2)});
    expect_documented("chunk-key", storage::record_key(key));
    expect_documented("chunk-record", storage::encode_record(record));
}

// The table of the chapter on layouts.
TEST(FormatsDocument, LayoutArithmetic) {
    pb::ChainTable table;
    for (uint64_t id = 1; id <= 96; ++id) {
        table.add_chains(100 + id);
    }
    auto chain = [&](uint64_t index) { return chain_of_piece(layout(), table, index).value; };
    EXPECT_EQ(chain(0), 196u);
    EXPECT_EQ(chain(3), 196u);
    EXPECT_EQ(chain(4), 101u);
    EXPECT_EQ(chain(8), 102u);
    EXPECT_EQ(chain(12), 196u);
    auto pieces = split_range(layout(), table, DataId(0x13), 4 * MiB - 100, 200);
    ASSERT_EQ(pieces.size(), 2u);
    EXPECT_EQ(pieces[0].chunk.index, 3u);
    EXPECT_EQ(pieces[0].piece_offset, MiB - 100);
    EXPECT_EQ(pieces[1].chunk.index, 4u);
    EXPECT_EQ(pieces[1].chain.value, 101u);
}

}  // namespace
}  // namespace kdfs
