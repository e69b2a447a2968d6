#include "kdfs/base/random.h"
#include "mds/schema.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>
#include <string>
#include <vector>

namespace kdfs::mds {
namespace {

std::string hex(const std::string& bytes) {
    std::string out;
    for (char c : bytes) {
        constexpr char kDigits[] = "0123456789abcdef";
        out += kDigits[static_cast<uint8_t>(c) >> 4];
        out += kDigits[static_cast<uint8_t>(c) & 15];
    }
    return out;
}

pb::Layout some_layout() {
    pb::Layout layout;
    layout.set_chunk_bytes(kChunkBytesDefault);
    layout.set_width(16);
    layout.set_table(2);
    layout.set_seed(77);
    layout.set_replicas(2);
    layout.set_placement(pb::PLACEMENT_LOCAL);
    layout.set_first_chain(9);
    return layout;
}

Inode some_file() {
    Inode inode;
    inode.ino = InodeId(258);
    inode.mode = S_IFREG | 0644;
    inode.nlink = 1;
    inode.uid = 1000;
    inode.gid = 1001;
    inode.size = 4097;
    inode.atime = -1;
    inode.mtime = 2;
    inode.ctime = 3;
    inode.change = 4;
    inode.cut = 3;
    inode.xattr_bytes = 12;
    inode.data = DataId(258);
    inode.layout = some_layout();
    return inode;
}

Inode some_directory() {
    Inode inode;
    inode.ino = InodeId(9);
    inode.mode = S_IFDIR | 0755;
    inode.nlink = 3;
    inode.parent = kRootInode;
    inode.policy.set_width(4);
    inode.policy.set_placement(pb::PLACEMENT_STRIPED);
    return inode;
}

// Each record type with its decoder.
struct Sample {
    std::string name;
    std::string key;
    std::string value;
    std::function<bool(const std::string&)> decodes;
};

std::vector<Sample> samples() {
    std::vector<Sample> all;
    auto add = [&all](std::string name, std::string key, std::string value, auto decode) {
        all.push_back({std::move(name), key, std::move(value), [key, decode](const std::string& v) {
                           auto result = decode(key, v);
                           EXPECT_TRUE(result.ok() || result.error().code == Errc::kCorrupt);
                           return result.ok();
                       }});
    };
    add("dentry", dentry_key(kRootInode, "a"), encode(Dentry{InodeId(5), S_IFREG}), decode_dentry);
    add("file", inode_key(InodeId(258)), encode(some_file()), decode_inode);
    add("directory", inode_key(InodeId(9)), encode(some_directory()), decode_inode);
    Inode link = some_directory();
    link.mode = S_IFLNK | 0777;
    link.symlink = "target";
    link.policy.Clear();
    add("symlink", inode_key(InodeId(9)), encode(link), decode_inode);
    add("counters", counters_key(), encode(Counters{}), decode_counters);
    add("dead data",
        dead_data_key(DataId(5)),
        encode(DeadData{DataId(5), some_layout(), 10}),
        decode_dead_data);
    add("trim",
        trim_key(InodeId(5), 6),
        encode(Trim{InodeId(5), DataId(4), some_layout(), 1, 2, 6}),
        decode_trim);
    return all;
}

TEST(SchemaTest, KeysSortByNumberThenName) {
    std::string low = dentry_key(InodeId(255), "z");
    std::string high = dentry_key(InodeId(256), "a");

    EXPECT_LT(low, high);
    EXPECT_LT(low, dentries_end(InodeId(255)));
    EXPECT_LE(dentries_end(InodeId(255)), high);
    EXPECT_LT(dentry_key(InodeId(UINT64_MAX), "a"), dentries_end(InodeId(UINT64_MAX)));
}

TEST(SchemaTest, RecordsHaveTheirGoldenBytes) {
    EXPECT_EQ(hex(dentry_key(InodeId(258), "ab")), "6400000000000001026162");
    EXPECT_EQ(hex(encode(Dentry{InodeId(5), S_IFDIR})), "01050000000000000000400000");
    EXPECT_EQ(hex(encode(some_file())),
              "0146a481000001000000e8030000e90300000110000000000000ffffffffffffffff"
              "020000000000000003000000000000000400000000000000"
              "0c000000020100000000000000001000000000001000000002000000000000004d00000000000000"
              "020109000000000000000300000000000000");
    EXPECT_EQ(hex(encode(some_directory())),
              "0130ed41000003000000000000000000000000000000000000000000000000000000"
              "000000000000000000000000000000000000000000000000"
              "01000000000000000000000000000000040000000000000001");
}

TEST(SchemaTest, InodeComesBackAsItWas) {
    Inode file = decode_inode(inode_key(InodeId(258)), encode(some_file())).value();
    EXPECT_EQ(file.ino, InodeId(258));
    EXPECT_EQ(file.atime, -1);
    EXPECT_EQ(file.xattr_bytes, 12U);
    EXPECT_EQ(file.layout.SerializeAsString(), some_layout().SerializeAsString());

    Inode directory = decode_inode(inode_key(InodeId(9)), encode(some_directory())).value();
    EXPECT_EQ(directory.parent, kRootInode);
    EXPECT_EQ(directory.policy.SerializeAsString(), some_directory().policy.SerializeAsString());
}

TEST(SchemaTest, TruncatedRecordsAreCorrupt) {
    for (const Sample& sample : samples()) {
        EXPECT_TRUE(sample.decodes(sample.value)) << sample.name;
        for (size_t size = 0; size < sample.value.size(); ++size) {
            EXPECT_FALSE(sample.decodes(sample.value.substr(0, size))) << sample.name << size;
        }
        EXPECT_FALSE(sample.decodes(sample.value + "x")) << sample.name;
    }
}

TEST(SchemaTest, FlippedBitsNeverCrashADecoder) {
    for (const Sample& sample : samples()) {
        for (size_t bit = 0; bit < sample.value.size() * 8; ++bit) {
            std::string damaged = sample.value;
            damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
            bool decoded = sample.decodes(damaged);
            EXPECT_FALSE(decoded && bit < 8) << sample.name << ": format byte ignored";
        }
    }
}

TEST(SchemaTest, RandomBytesNeverCrashADecoder) {
    Random random(1);
    for (const Sample& sample : samples()) {
        for (int round = 0; round < 2000; ++round) {
            std::string bytes(random.below(160), '\0');
            for (char& c : bytes) {
                c = static_cast<char>(random.u64());
            }
            if (!bytes.empty()) {
                bytes[0] = static_cast<char>(kRecordFormat);
            }
            sample.decodes(bytes);
            (void)decode_reply(sample.key, bytes).ok();
            (void)describe_key(bytes);
            (void)parse_named_key(bytes).ok();
        }
    }
}

TEST(SchemaTest, CorruptRecordNamesItsKey) {
    auto result = decode_inode(inode_key(InodeId(0x1f)), "");

    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, Errc::kCorrupt);
    EXPECT_NE(result.error().detail.find("'i 1f'"), std::string::npos) << result.error().detail;
}

// A layout is divided by, also before anybody looks at the file: a server that took one in at its
// start from the queues would end each time.
TEST(SchemaTest, LayoutsAndPoliciesThatCannotBeAreDamage) {
    DeadData dead{DataId(5), some_layout(), 10};
    dead.layout.set_chunk_bytes(0);
    EXPECT_FALSE(decode_dead_data(dead_data_key(dead.data), encode(dead)).ok());
    Trim trim{InodeId(5), DataId(4), some_layout(), 1, 2, 6};
    trim.layout.set_width(0);
    EXPECT_FALSE(decode_trim(trim_key(trim.ino, trim.change), encode(trim)).ok());
    Inode file = some_file();
    file.layout.set_chunk_bytes(kChunkBytesMin + 1);
    EXPECT_FALSE(decode_inode(inode_key(file.ino), encode(file)).ok());
    Inode directory = some_directory();
    directory.policy.set_chunk_bytes(5);
    EXPECT_FALSE(decode_inode(inode_key(directory.ino), encode(directory)).ok());
}

}  // namespace
}  // namespace kdfs::mds
