#include "tests/unit/mds_support.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <vector>

namespace kdfs::mds::testing {
namespace {

constexpr uint32_t kCreate = 1;
constexpr uint32_t kReplace = 2;

std::vector<std::string> list(TestTree& tree, InodeId ino) {
    pb::MetaRequest request;
    request.mutable_listxattr()->set_ino(ino.value);
    auto reply = tree.run(request);
    EXPECT_EQ(outcome(reply), "ok");
    return {reply->names().begin(), reply->names().end()};
}

TEST(XattrTest, ValuesAreSetListedAndRemoved) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    std::string binary("\0\1\xff", 3);

    auto set = tree.setxattr(file, "user.b", binary);

    EXPECT_TRUE(set->attr().has_xattrs());
    EXPECT_EQ(set->attr().ctime(), tree.now);
    ASSERT_TRUE(tree.setxattr(file, "trusted.a", "").ok());
    EXPECT_EQ(tree.getxattr(file, "user.b")->value(), binary);
    EXPECT_EQ(list(tree, file), (std::vector<std::string>{"trusted.a", "user.b"}));
    ASSERT_TRUE(tree.removexattr(file, "user.b").ok());
    EXPECT_EQ(outcome(tree.removexattr(file, "user.b")), "NoData");
    EXPECT_EQ(outcome(tree.getxattr(file, "user.b")), "NoData");
    EXPECT_FALSE(tree.removexattr(file, "trusted.a")->attr().has_xattrs());
    EXPECT_TRUE(list(tree, file).empty());
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(XattrTest, FlagsAreHonoured) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");

    EXPECT_EQ(outcome(tree.setxattr(file, "user.a", "1", kReplace)), "NoData");
    EXPECT_EQ(outcome(tree.setxattr(file, "user.a", "1", kCreate)), "ok");
    EXPECT_EQ(outcome(tree.setxattr(file, "user.a", "2", kCreate)), "Exists");
    EXPECT_EQ(outcome(tree.setxattr(file, "user.a", "3", kReplace)), "ok");
    EXPECT_EQ(outcome(tree.setxattr(file, "user.a", "4", 3)), "InvalidArgument");
    EXPECT_EQ(tree.getxattr(file, "user.a")->value(), "3");
}

TEST(XattrTest, NamesAndSizesAreBounded) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    InodeId fifo = tree.make(kRootInode, "p", S_IFIFO | 0600);
    std::string largest(kXattrValueBytesMax, 'v');

    EXPECT_EQ(outcome(tree.setxattr(file, "system.posix_acl_access", "x")), "NotSupported");
    EXPECT_EQ(outcome(tree.getxattr(file, "system.posix_acl_access")), "NotSupported");
    EXPECT_EQ(outcome(tree.setxattr(file, "other.x", "x")), "NotSupported");
    EXPECT_EQ(outcome(tree.setxattr(file, "user.", "x")), "InvalidArgument");
    EXPECT_EQ(outcome(tree.setxattr(file, "user." + std::string(251, 'n'), "x")), "Range");
    EXPECT_EQ(outcome(tree.setxattr(file, "user.big", largest + "x")), "TooBig");
    EXPECT_EQ(outcome(tree.setxattr(fifo, "user.a", "x")), "NotPermitted");
    EXPECT_EQ(outcome(tree.setxattr(fifo, "trusted.a", "x")), "ok");
    for (const char* name : {"user.1", "user.2", "user.3"}) {
        EXPECT_EQ(outcome(tree.setxattr(file, name, largest)), "ok");
    }
    EXPECT_EQ(outcome(tree.setxattr(file, "user.4", largest)), "NoSpace");
    EXPECT_EQ(outcome(tree.setxattr(file, "user.3", largest)), "ok");
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(XattrTest, RemovedFileLeavesNoXattrs) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    ASSERT_TRUE(tree.setxattr(file, "user.a", "1").ok());

    ASSERT_TRUE(tree.unlink(kRootInode, "f").ok());

    EXPECT_TRUE(tree.fsck().clean());
}

TEST(PolicyTest, NearestAncestorThatSetsAFieldDecides) {
    TestTree tree;
    InodeId a = tree.mkdir(kRootInode, "a");
    InodeId b = tree.mkdir(a, "b");
    InodeId c = tree.mkdir(b, "c");
    ASSERT_TRUE(tree.setxattr(a, "kdfs.chunk_size", "4M").ok());
    ASSERT_TRUE(tree.setxattr(a, "user.kdfs.width", "4").ok());
    ASSERT_TRUE(tree.setxattr(b, "trusted.kdfs.width", "2").ok());
    ASSERT_TRUE(tree.setxattr(b, "kdfs.placement", "local").ok());

    pb::Layout layout = tree.create(c, "f")->attr().layout();

    EXPECT_EQ(layout.chunk_bytes(), 4 * MiB);
    EXPECT_EQ(layout.width(), 2U);
    EXPECT_EQ(layout.replicas(), 2U);
    EXPECT_EQ(layout.placement(), pb::PLACEMENT_LOCAL);
    EXPECT_EQ(tree.getxattr(c, "user.kdfs.chunk_size")->value(), "4194304");
    EXPECT_EQ(tree.getxattr(c, "kdfs.placement")->value(), "local");
    EXPECT_EQ(tree.getxattr(kRootInode, "kdfs.placement")->value(), "striped");
    EXPECT_TRUE(list(tree, b).empty());
}

TEST(PolicyTest, ChangesAndMovesAreSeenByTheNextFile) {
    TestTree tree;
    InodeId a = tree.mkdir(kRootInode, "a");
    InodeId b = tree.mkdir(a, "b");
    InodeId other = tree.mkdir(kRootInode, "o");
    EXPECT_EQ(tree.create(b, "1")->attr().layout().width(), kWidthDefault);

    ASSERT_TRUE(tree.setxattr(a, "kdfs.width", "3").ok());
    EXPECT_EQ(tree.create(b, "2")->attr().layout().width(), 3U);
    ASSERT_TRUE(tree.rename(a, "b", other, "b").ok());
    EXPECT_EQ(tree.create(b, "3")->attr().layout().width(), kWidthDefault);
    ASSERT_TRUE(tree.rename(other, "b", a, "b").ok());
    ASSERT_TRUE(tree.removexattr(a, "kdfs.width").ok());
    EXPECT_EQ(outcome(tree.removexattr(a, "kdfs.width")), "NoData");
    EXPECT_EQ(tree.create(b, "4")->attr().layout().width(), kWidthDefault);
}

TEST(PolicyTest, NonsenseIsRefused) {
    TestTree tree;
    for (const char* bad : {"0", "3", "", "1000", "65537", "128M", "x", "-1", "64k", "1M1"}) {
        EXPECT_EQ(outcome(tree.setxattr(kRootInode, "kdfs.chunk_size", bad)), "InvalidArgument")
            << bad;
    }
    for (const char* bad : {"0", "257", "x", "", "-1", "1K", "99999999999999999999"}) {
        EXPECT_EQ(outcome(tree.setxattr(kRootInode, "kdfs.width", bad)), "InvalidArgument") << bad;
    }
    EXPECT_EQ(outcome(tree.setxattr(kRootInode, "kdfs.replicas", "5")), "InvalidArgument");
    EXPECT_EQ(outcome(tree.setxattr(kRootInode, "kdfs.replicas", "0")), "InvalidArgument");
    EXPECT_EQ(outcome(tree.setxattr(kRootInode, "kdfs.placement", "far")), "InvalidArgument");
    EXPECT_EQ(outcome(tree.setxattr(kRootInode, "kdfs.colour", "1")), "NotSupported");
}

TEST(PolicyTest, FilesShowTheirLayoutAndKeepIt) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");

    EXPECT_EQ(tree.getxattr(file, "kdfs.width")->value(), std::to_string(kWidthDefault));
    EXPECT_EQ(outcome(tree.setxattr(file, "kdfs.width", "1")), "NotSupported");
    pb::MetaRequest request;
    request.mutable_get_policy()->set_ino(file.value);
    EXPECT_EQ(tree.run(request)->policy().chunk_bytes(), kChunkBytesDefault);
}

TEST(PolicyTest, GetPolicyGivesEffectiveAndOwn) {
    TestTree tree;
    InodeId directory = tree.mkdir(kRootInode, "d");
    ASSERT_TRUE(tree.setxattr(directory, "kdfs.replicas", "3").ok());
    pb::MetaRequest request;
    request.mutable_get_policy()->set_ino(directory.value);

    auto reply = tree.run(request);

    EXPECT_EQ(reply->policy().replicas(), 3U);
    EXPECT_EQ(reply->policy().width(), kWidthDefault);
    EXPECT_EQ(reply->own_policy().replicas(), 3U);
    EXPECT_EQ(reply->own_policy().width(), 0U);
}

}  // namespace
}  // namespace kdfs::mds::testing
