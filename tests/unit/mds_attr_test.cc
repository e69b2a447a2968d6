#include "tests/unit/mds_support.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>

namespace kdfs::mds::testing {
namespace {

pb::MetaRequest flush(InodeId ino, uint64_t size, uint64_t cut = 0) {
    pb::MetaRequest request;
    request.mutable_flush()->set_ino(ino.value);
    request.mutable_flush()->set_size(size);
    request.mutable_flush()->set_cut(cut);
    return request;
}

TEST(AttrTest, SetAttrChangesWhatIsNamedAndTheCtime) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    pb::Attr before = tree.stat(file);
    pb::MetaRequest request;
    request.mutable_setattr()->set_ino(file.value);
    request.mutable_setattr()->set_mode(S_IFDIR | 04711);
    request.mutable_setattr()->set_uid(0);
    request.mutable_setattr()->set_atime(-5);

    pb::Attr after = tree.run(request).value().attr();

    EXPECT_EQ(after.mode(), uint32_t{S_IFREG | 04711});
    EXPECT_EQ(after.uid(), 0U);
    EXPECT_EQ(after.gid(), before.gid());
    EXPECT_EQ(after.atime(), -5);
    EXPECT_EQ(after.mtime(), before.mtime());
    EXPECT_EQ(after.ctime(), tree.now);
    EXPECT_EQ(after.change(), before.change() + 1);
}

TEST(AttrTest, KillSuidDropsSetIdBitsAndCapability) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f", S_IFREG | 06755);
    InodeId locking = tree.make(kRootInode, "g", S_IFREG | 06744);
    InodeId directory = tree.make(kRootInode, "d", S_IFDIR | 06755);
    ASSERT_TRUE(tree.setxattr(file, "security.capability", "caps").ok());
    ASSERT_TRUE(tree.setxattr(file, "user.a", "b").ok());
    for (InodeId ino : {file, locking, directory}) {
        pb::MetaRequest request;
        request.mutable_setattr()->set_ino(ino.value);
        request.mutable_setattr()->set_uid(1);
        request.mutable_setattr()->set_kill_suid(true);
        ASSERT_TRUE(tree.run(request).ok());
    }

    EXPECT_EQ(tree.stat(file).mode(), uint32_t{S_IFREG | 0755});
    EXPECT_EQ(tree.stat(locking).mode(), uint32_t{S_IFREG | S_ISGID | 0744});
    EXPECT_EQ(tree.stat(directory).mode(), uint32_t{S_IFDIR | 06755});
    EXPECT_EQ(outcome(tree.getxattr(file, "security.capability")), "NoData");
    EXPECT_EQ(tree.getxattr(file, "user.a")->value(), "b");
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(AttrTest, SizeIsForRegularFilesWithinBounds) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    InodeId fifo = tree.make(kRootInode, "p", S_IFIFO | 0600);

    EXPECT_EQ(outcome(tree.set_size(kRootInode, 1)), "IsDirectory");
    EXPECT_EQ(outcome(tree.set_size(fifo, 1)), "InvalidArgument");
    EXPECT_EQ(outcome(tree.set_size(file, kFileBytesMax + 1)), "FileTooBig");
    EXPECT_EQ(outcome(tree.set_size(file, kFileBytesMax)), "ok");
}

TEST(AttrTest, GrowingIsOnlyTheSize) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    uint64_t data = tree.stat(file).data();

    auto grown = tree.set_size(file, 100);

    EXPECT_EQ(grown->attr().size(), 100U);
    EXPECT_EQ(grown->attr().mtime(), tree.now);
    EXPECT_EQ(grown->attr().data(), data);
    EXPECT_FALSE(tree.effects.trim.has_value());
    EXPECT_TRUE(tree.effects.died.empty());
}

TEST(AttrTest, ShrinkingRecordsATrimUntilItIsFinished) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    ASSERT_TRUE(tree.set_size(file, 100).ok());

    auto shrunk = tree.set_size(file, 40);

    ASSERT_TRUE(tree.effects.trim.has_value());
    Trim trim = *tree.effects.trim;
    EXPECT_EQ(trim.from_bytes, 40U);
    EXPECT_EQ(trim.beyond_bytes, 100U);
    EXPECT_EQ(trim.data.value, shrunk->attr().data());
    ASSERT_TRUE(tree.set_size(file, 10).ok());
    ASSERT_EQ(tree.space.trims(10)->size(), 2U);
    EXPECT_EQ(tree.space.trims(10)->at(0).from_bytes, 40U);
    EXPECT_EQ(tree.space.trims(10)->at(0).layout.width(), kWidthDefault);
    EXPECT_EQ(tree.space.counts()->trims, 2U);
    KvBatch batch;
    ASSERT_TRUE(tree.space.finish_trim(trim, batch).ok());
    tree.commit(batch);
    ASSERT_EQ(tree.space.trims(10)->size(), 1U);
    EXPECT_EQ(tree.space.trims(10)->at(0).from_bytes, 10U);
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(AttrTest, GrowingCutsWhatAWriterMayHaveLeftBeyondTheEnd) {
    TestTree tree;
    InodeId shared = tree.make(kRootInode, "shared");
    InodeId old = tree.make(kRootInode, "old");
    tree.written_by_other = {shared};

    ASSERT_TRUE(tree.set_size(shared, 100).ok());
    ASSERT_TRUE(tree.effects.trim.has_value());
    EXPECT_EQ(tree.effects.trim->from_bytes, 100U);
    EXPECT_EQ(tree.effects.trim->beyond_bytes, kEndUnknown);
    ASSERT_TRUE(tree.set_size(old, 100).ok());
    EXPECT_FALSE(tree.effects.trim.has_value());
    KvBatch batch;
    ASSERT_TRUE(tree.space.forget_ends(batch).ok());
    tree.commit(batch);
    ASSERT_TRUE(tree.set_size(old, 100).ok());
    ASSERT_TRUE(tree.effects.trim.has_value());
    EXPECT_EQ(tree.effects.trim->from_bytes, 100U);
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(AttrTest, TruncationToNothingChangesTheData) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    ASSERT_TRUE(tree.set_size(file, 100).ok());
    uint64_t old = tree.stat(file).data();

    uint64_t fresh = tree.set_size(file, 0)->attr().data();

    EXPECT_NE(fresh, old);
    EXPECT_FALSE(tree.effects.died.empty());
    EXPECT_EQ(tree.space.dead_data(DataId(), 9)->at(0).data.value, old);
    EXPECT_EQ(tree.set_size(file, 0)->attr().data(), fresh);
    tree.exclusive.insert(file);
    EXPECT_NE(tree.set_size(file, 0)->attr().data(), fresh);
    EXPECT_NE(tree.make(kRootInode, "g").value, fresh);
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(AttrTest, ASizeFromBeforeItWasSetSaysNothing) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    EXPECT_EQ(tree.stat(file).cut(), 0U);
    ASSERT_TRUE(tree.run(flush(file, 500)).ok());
    uint64_t cut = tree.set_size(file, 40)->attr().cut();
    EXPECT_EQ(cut, tree.stat(file).change());

    EXPECT_EQ(tree.run(flush(file, 600)).value().attr().size(), 40U);
    EXPECT_EQ(tree.run(flush(file, 600, cut)).value().attr().size(), 600U);
    EXPECT_EQ(tree.stat(file).cut(), cut);
}

TEST(AttrTest, OpenTruncates) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    ASSERT_TRUE(tree.set_size(file, 100).ok());
    pb::MetaRequest request;
    request.mutable_open()->set_ino(file.value);
    EXPECT_EQ(tree.run(request)->attr().size(), 100U);

    request.mutable_open()->set_write(true);
    request.mutable_open()->set_truncate(true);

    pb::Attr attr = tree.run(request)->attr();
    EXPECT_EQ(attr.size(), 0U);
    EXPECT_EQ(attr.mtime(), tree.now);
    request.mutable_open()->set_ino(1);
    EXPECT_EQ(outcome(tree.run(request)), "IsDirectory");
}

TEST(AttrTest, FlushOfAnExclusiveHolderIsTheTruth) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    ASSERT_TRUE(tree.set_size(file, 100).ok());
    tree.exclusive.insert(file);
    pb::MetaRequest request = flush(file, 160, tree.stat(file).cut());
    request.mutable_flush()->set_mtime(50);
    request.mutable_flush()->set_atime(40);

    pb::Attr attr = tree.run(request)->attr();

    EXPECT_EQ(attr.size(), 160U);
    EXPECT_EQ(attr.mtime(), 50);
    EXPECT_EQ(attr.atime(), 40);
    pb::Attr again = tree.run(request)->attr();
    EXPECT_EQ(again.SerializeAsString(), attr.SerializeAsString());
}

TEST(AttrTest, FlushOfASharedWriterOnlyGrows) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f", S_IFREG | 04755);
    ASSERT_TRUE(tree.set_size(file, 100).ok());
    WallTime mtime = tree.stat(file).mtime();
    uint64_t cut = tree.stat(file).cut();

    EXPECT_EQ(tree.run(flush(file, 60, cut))->attr().size(), 100U);
    EXPECT_EQ(tree.stat(file).mtime(), mtime);
    pb::Attr grown = tree.run(flush(file, 160, cut))->attr();
    EXPECT_EQ(grown.size(), 160U);
    EXPECT_EQ(grown.mtime(), tree.now);
    pb::MetaRequest old = flush(file, 0);
    old.mutable_flush()->set_mtime(1);
    old.mutable_flush()->set_kill_suid(true);
    pb::Attr attr = tree.run(old)->attr();
    EXPECT_GT(attr.mtime(), 1);
    EXPECT_EQ(attr.mode(), uint32_t{S_IFREG | 0755});
    EXPECT_EQ(outcome(tree.run(flush(file, UINT64_MAX))), "InvalidArgument");
    EXPECT_EQ(outcome(tree.run(flush(kRootInode, 5))), "InvalidArgument");
    EXPECT_EQ(outcome(tree.run(flush(kRootInode, 0))), "ok");
}

TEST(AttrTest, RecalledHolderHandsOverItsState) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    DirtyState dirty;
    dirty.ino = file;
    dirty.size_bytes = 77;
    dirty.mtime = tree.now + 5;
    dirty.exclusive = true;
    KvBatch batch;

    auto attr = tree.space.take_dirty(dirty, tree.now, batch);
    tree.commit(batch);

    ASSERT_TRUE(attr.ok());
    EXPECT_EQ(attr->size(), 77U);
    EXPECT_EQ(attr->ctime(), tree.now + 5);
    EXPECT_EQ(tree.stat(file).SerializeAsString(), attr->SerializeAsString());
    KvBatch nothing;
    dirty.ino = InodeId(999);
    EXPECT_EQ(outcome(tree.space.take_dirty(dirty, tree.now, nothing)), "StaleHandle");
}

}  // namespace
}  // namespace kdfs::mds::testing
