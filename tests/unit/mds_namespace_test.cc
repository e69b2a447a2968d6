#include "mds/namespace.h"
#include "tests/unit/mds_support.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>
#include <vector>

namespace kdfs::mds::testing {
namespace {

constexpr uint32_t kNoReplace = 1;
constexpr uint32_t kExchange = 2;

pb::MetaRequest open_or_create(InodeId parent, const std::string& name, bool truncate) {
    pb::MetaRequest request;
    request.mutable_create()->set_parent(parent.value);
    request.mutable_create()->set_name(name);
    request.mutable_create()->set_mode(S_IFREG | 0644);
    request.mutable_create()->set_open(true);
    request.mutable_create()->set_truncate(truncate);
    return request;
}

TEST(NamespaceTest, FreshStoreHasARootAndIsClean) {
    TestTree tree;

    pb::Attr root = tree.stat(kRootInode);
    EXPECT_EQ(root.mode(), uint32_t{S_IFDIR | 0755});
    EXPECT_EQ(root.nlink(), 2U);
    EXPECT_EQ(root.parent(), 1U);
    EXPECT_TRUE(tree.fsck().clean());
    KvBatch again;
    EXPECT_TRUE(tree.space.format(1, pb::Policy(), again).ok());
    EXPECT_TRUE(again.empty());
}

TEST(NamespaceTest, CreatedFileIsFoundWithItsAttributes) {
    TestTree tree;

    auto created = tree.create(kRootInode, "a", S_IFREG | S_ISUID | 0640);

    ASSERT_EQ(outcome(created), "ok");
    const pb::Attr& attr = created->attr();
    EXPECT_EQ(attr.mode(), uint32_t{S_IFREG | S_ISUID | 0640});
    EXPECT_EQ(attr.nlink(), 1U);
    EXPECT_EQ(attr.uid(), 10U);
    EXPECT_EQ(attr.gid(), 20U);
    EXPECT_EQ(attr.mtime(), tree.now);
    EXPECT_NE(attr.data(), 0U);
    EXPECT_EQ(attr.layout().width(), kWidthDefault);
    EXPECT_EQ(created->parent().mtime(), tree.now);
    EXPECT_EQ(created->parent().ctime(), tree.now);
    EXPECT_EQ(created->parent().size(), 1U);
    auto found = tree.lookup(kRootInode, "a");
    ASSERT_EQ(outcome(found), "ok");
    EXPECT_EQ(found->attr().SerializeAsString(), attr.SerializeAsString());
    EXPECT_EQ(found->parent().ino(), 1U);
}

TEST(NamespaceTest, MissingNameIsNotFoundOrAnEmptyAnswer) {
    TestTree tree;
    EXPECT_EQ(outcome(tree.lookup(kRootInode, "none")), "NotFound");

    pb::MetaRequest request;
    request.mutable_lookup()->set_parent(1);
    request.mutable_lookup()->set_name("none");
    request.mutable_lookup()->set_want_negative(true);
    auto reply = tree.run(request);

    ASSERT_EQ(outcome(reply), "ok");
    EXPECT_EQ(reply->attr().ino(), 0U);
    EXPECT_EQ(reply->parent().ino(), 1U);
}

TEST(NamespaceTest, NamesAreChecked) {
    TestTree tree;
    std::string longest(255, 'n');
    std::string too_long(256, 'n');

    EXPECT_EQ(outcome(tree.create(kRootInode, longest)), "ok");
    EXPECT_EQ(outcome(tree.lookup(kRootInode, longest)), "ok");
    EXPECT_EQ(outcome(tree.create(kRootInode, too_long)), "NameTooLong");
    EXPECT_EQ(outcome(tree.lookup(kRootInode, too_long)), "NameTooLong");
    EXPECT_EQ(outcome(tree.unlink(kRootInode, too_long)), "NameTooLong");
    EXPECT_EQ(outcome(tree.rename(kRootInode, longest, kRootInode, too_long)), "NameTooLong");
    EXPECT_EQ(outcome(tree.link(InodeId(2), kRootInode, too_long)), "NameTooLong");
    for (const char* bad : {"", ".", "..", "a/b"}) {
        EXPECT_EQ(outcome(tree.create(kRootInode, bad)), "InvalidArgument") << bad;
    }
    EXPECT_EQ(outcome(tree.create(kRootInode, std::string("a\0b", 3))), "InvalidArgument");
}

TEST(NamespaceTest, ParentMustBeALivingDirectory) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");

    EXPECT_EQ(outcome(tree.create(file, "x")), "NotDirectory");
    EXPECT_EQ(outcome(tree.lookup(file, "x")), "NotDirectory");
    EXPECT_EQ(outcome(tree.unlink(file, "x")), "NotDirectory");
    EXPECT_EQ(outcome(tree.readdir(file, "", 0)), "NotDirectory");
    EXPECT_EQ(outcome(tree.create(InodeId(999), "x")), "StaleHandle");
    InodeId gone = tree.mkdir(kRootInode, "d");
    tree.open.insert(gone);
    ASSERT_EQ(outcome(tree.rmdir(kRootInode, "d")), "ok");
    EXPECT_EQ(outcome(tree.create(gone, "x")), "NotFound");
    EXPECT_EQ(outcome(tree.link(file, gone, "x")), "NotFound");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "f", gone, "x")), "NotFound");
    EXPECT_EQ(outcome(tree.getattr(InodeId(999))), "StaleHandle");
}

TEST(NamespaceTest, ExclusiveCreateFailsAndOpenCreateOpens) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    tree.mkdir(kRootInode, "d");
    ASSERT_TRUE(tree.symlink(kRootInode, "l", "f").ok());
    ASSERT_EQ(outcome(tree.set_size(file, 100)), "ok");

    EXPECT_EQ(outcome(tree.create(kRootInode, "f")), "Exists");
    EXPECT_EQ(outcome(tree.create(kRootInode, "f", S_IFDIR | 0755)), "Exists");
    EXPECT_EQ(outcome(tree.run(open_or_create(kRootInode, "d", false))), "IsDirectory");
    EXPECT_EQ(outcome(tree.run(open_or_create(kRootInode, "l", false))), "StaleHandle");
    auto opened = tree.run(open_or_create(kRootInode, "f", false));
    ASSERT_EQ(outcome(opened), "ok");
    EXPECT_EQ(opened->attr().ino(), file.value);
    EXPECT_EQ(opened->attr().size(), 100U);
    auto truncated = tree.run(open_or_create(kRootInode, "f", true));
    EXPECT_EQ(truncated->attr().size(), 0U);
    EXPECT_NE(truncated->attr().data(), opened->attr().data());
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, EveryTypeOfFileCanBeMade) {
    TestTree tree;
    for (uint32_t type : {S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK}) {
        pb::MetaRequest request;
        request.mutable_create()->set_parent(1);
        request.mutable_create()->set_name(std::to_string(type));
        request.mutable_create()->set_mode(type | 0600);
        request.mutable_create()->set_rdev(0x105);
        auto reply = tree.run(request);
        ASSERT_EQ(outcome(reply), "ok");
        EXPECT_EQ(reply->attr().mode(), type | 0600);
        EXPECT_EQ(reply->attr().rdev(), type == S_IFCHR || type == S_IFBLK ? 0x105U : 0U);
    }
    auto link = tree.symlink(kRootInode, "l", "some/where");
    EXPECT_EQ(link->attr().symlink(), "some/where");
    EXPECT_EQ(link->attr().size(), 10U);
    EXPECT_EQ(link->attr().mode(), uint32_t{S_IFLNK | 0777});
    EXPECT_EQ(outcome(tree.symlink(kRootInode, "e", "")), "NotFound");
    EXPECT_EQ(outcome(tree.symlink(kRootInode, "e", std::string(4096, 'x'))), "NameTooLong");
    EXPECT_EQ(outcome(tree.symlink(kRootInode, "e", std::string(4095, 'x'))), "ok");
    EXPECT_EQ(outcome(tree.create(kRootInode, "bad", 0170000)), "InvalidArgument");
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, SetGidDirectoryHandsItsGroupDown) {
    TestTree tree;
    InodeId directory = tree.make(kRootInode, "d", S_IFDIR | S_ISGID | 0755);
    pb::MetaRequest chown;
    chown.mutable_setattr()->set_ino(directory.value);
    chown.mutable_setattr()->set_gid(77);
    ASSERT_TRUE(tree.run(chown).ok());

    pb::Attr file = tree.stat(tree.make(directory, "f"));
    pb::Attr below = tree.stat(tree.mkdir(directory, "s"));

    EXPECT_EQ(file.gid(), 77U);
    EXPECT_EQ(file.mode() & S_ISGID, 0U);
    EXPECT_EQ(below.gid(), 77U);
    EXPECT_EQ(below.mode() & S_ISGID, uint32_t{S_ISGID});
}

TEST(NamespaceTest, DirectoriesCountTheirSubdirectories) {
    TestTree tree;
    InodeId directory = tree.mkdir(kRootInode, "d");
    tree.mkdir(directory, "a");
    tree.mkdir(directory, "b");
    tree.make(directory, "f");
    EXPECT_EQ(tree.stat(directory).nlink(), 4U);
    EXPECT_EQ(tree.stat(directory).size(), 3U);

    auto removed = tree.rmdir(directory, "a");

    EXPECT_EQ(removed->parent().nlink(), 3U);
    EXPECT_EQ(removed->parent().mtime(), tree.now);
}

TEST(NamespaceTest, RemoveChecksTypesAndContent) {
    TestTree tree;
    InodeId directory = tree.mkdir(kRootInode, "d");
    tree.make(directory, "f");

    EXPECT_EQ(outcome(tree.rmdir(kRootInode, "d")), "NotEmpty");
    EXPECT_EQ(outcome(tree.unlink(kRootInode, "d")), "IsDirectory");
    EXPECT_EQ(outcome(tree.rmdir(directory, "f")), "NotDirectory");
    EXPECT_EQ(outcome(tree.unlink(directory, "none")), "NotFound");
    EXPECT_EQ(outcome(tree.unlink(directory, "f")), "ok");
    EXPECT_EQ(outcome(tree.rmdir(kRootInode, "d")), "ok");
    EXPECT_EQ(outcome(tree.getattr(directory)), "StaleHandle");
    EXPECT_EQ(tree.stat(kRootInode).nlink(), 2U);
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, UnlinkedFileIsQueuedForCollection) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    ASSERT_TRUE(tree.set_size(file, 5000).ok());
    uint64_t data = tree.stat(file).data();

    auto removed = tree.unlink(kRootInode, "f");

    EXPECT_FALSE(removed->orphaned());
    EXPECT_EQ(removed->attr().nlink(), 0U);
    EXPECT_EQ(tree.effects.freed, std::vector<InodeId>{file});
    EXPECT_FALSE(tree.effects.died.empty());
    auto dead = tree.space.dead_data(DataId(), 10);
    ASSERT_EQ(dead->size(), 1U);
    EXPECT_EQ((*dead)[0].data.value, data);
    EXPECT_EQ((*dead)[0].size_bytes, 5000U);
    EXPECT_TRUE(tree.space.dead_data(DataId(data), 10)->empty());
    EXPECT_EQ(tree.space.counts()->gc_queued, 1U);
    KvBatch batch;
    ASSERT_TRUE(tree.space.finish_dead_data({DataId(data)}, batch).ok());
    tree.commit(batch);
    EXPECT_EQ(tree.space.counts()->gc_queued, 0U);
    EXPECT_TRUE(tree.space.dead_data(DataId(), 10)->empty());
    KvBatch nothing;
    ASSERT_TRUE(tree.space.finish_dead_data({DataId(data)}, nothing).ok());
    EXPECT_TRUE(nothing.empty());
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, ARemovedFileEndsAtItsSizeUnlessAWriterMayNotHaveSaidHowFarItWrote) {
    TestTree tree;
    tree.make(kRootInode, "known");
    InodeId told = tree.make(kRootInode, "told");
    InodeId untold = tree.make(kRootInode, "untold");
    InodeId shared = tree.make(kRootInode, "shared");
    InodeId cut = tree.make(kRootInode, "cut");
    ASSERT_TRUE(tree.set_size(cut, 77).ok());
    tree.exclusive = {told, untold, cut};
    tree.written_by_other = {shared};

    ASSERT_TRUE(tree.unlink(kRootInode, "known").ok());
    pb::MetaRequest request;
    request.mutable_remove()->set_parent(kRootInode.value);
    request.mutable_remove()->set_name("told");
    request.mutable_remove()->set_not_open_ino(told.value);
    request.mutable_remove()->set_size(4711);
    ASSERT_EQ(outcome(tree.run(request)), "ok");
    ASSERT_TRUE(tree.unlink(kRootInode, "untold").ok());
    ASSERT_TRUE(tree.unlink(kRootInode, "shared").ok());
    ASSERT_TRUE(tree.set_size(cut, 0).ok());

    auto dead = tree.space.dead_data(DataId(), 10);
    ASSERT_EQ(dead->size(), 5U);
    EXPECT_EQ((*dead)[0].size_bytes, 0U);
    EXPECT_EQ((*dead)[1].size_bytes, 4711U);
    EXPECT_EQ((*dead)[2].size_bytes, kEndUnknown);
    EXPECT_EQ((*dead)[3].size_bytes, kEndUnknown);
    EXPECT_EQ((*dead)[4].size_bytes, 77U);
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, ForgottenEndsHoldForTheFilesThereAreAlsoAfterARestart) {
    TestTree tree;
    tree.make(kRootInode, "old");
    KvBatch batch;
    ASSERT_TRUE(tree.space.forget_ends(batch).ok());
    tree.commit(batch);
    tree.make(kRootInode, "new");
    auto stored = tree.store.get(Namespace::forgotten_ends_key());
    ASSERT_TRUE(stored.ok() && *stored);
    Namespace next(tree.store);
    ASSERT_TRUE(next.restore_ends(**stored).ok());
    EXPECT_EQ(outcome(next.restore_ends("damaged")), "Corrupt");

    ASSERT_TRUE(tree.unlink(kRootInode, "old").ok());
    ASSERT_TRUE(tree.unlink(kRootInode, "new").ok());

    auto dead = next.dead_data(DataId(), 10);
    ASSERT_EQ(dead->size(), 2U);
    EXPECT_EQ((*dead)[0].size_bytes, kEndUnknown);
    EXPECT_EQ((*dead)[1].size_bytes, 0U);
}

TEST(NamespaceTest, OpenFileLivesOnAsAnOrphan) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    tree.open.insert(file);

    auto removed = tree.unlink(kRootInode, "f");

    EXPECT_TRUE(removed->orphaned());
    EXPECT_EQ(tree.effects.orphaned, std::vector<InodeId>{file});
    EXPECT_EQ(tree.stat(file).nlink(), 0U);
    EXPECT_EQ(*tree.space.orphans(InodeId(), 10), std::vector<InodeId>{file});
    EXPECT_TRUE(tree.space.orphans(file, 10)->empty());
    EXPECT_EQ(outcome(tree.link(file, kRootInode, "again")), "NotFound");
    EXPECT_TRUE(tree.fsck().clean());
    KvBatch batch;
    EXPECT_TRUE(*tree.space.release_orphan(file, batch));
    tree.commit(batch);
    EXPECT_EQ(outcome(tree.getattr(file)), "StaleHandle");
    EXPECT_EQ(tree.space.counts()->orphans, 0U);
    EXPECT_EQ(tree.space.counts()->gc_queued, 1U);
    KvBatch nothing;
    EXPECT_FALSE(*tree.space.release_orphan(file, nothing));
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, ReleaseTakesDirtyStateAndFreesOrphansNobodyHasOpen) {
    TestTree tree;
    tree.client_may_have_open = true;
    InodeId kept = tree.make(kRootInode, "kept");
    InodeId orphan = tree.make(kRootInode, "orphan");
    InodeId second = tree.make(kRootInode, "second");
    ASSERT_TRUE(tree.unlink(kRootInode, "orphan")->orphaned());
    ASSERT_TRUE(tree.unlink(kRootInode, "second")->orphaned());
    tree.exclusive = {kept, orphan};
    tree.open = {second};
    pb::MetaRequest request;
    for (InodeId ino : {kept, orphan, orphan, second, InodeId(999)}) {
        pb::ReleaseOne& item = *request.mutable_release()->add_items();
        item.set_ino(ino.value);
        item.set_size(123);
        item.set_mtime(5000000);
    }

    ASSERT_EQ(outcome(tree.run(request)), "ok");

    EXPECT_EQ(tree.stat(kept).size(), 123U);
    EXPECT_EQ(tree.stat(kept).mtime(), 5000000);
    EXPECT_EQ(outcome(tree.getattr(orphan)), "StaleHandle");
    EXPECT_EQ(tree.space.dead_data(DataId(), 10)->at(0).size_bytes, 123U);
    EXPECT_EQ(tree.stat(second).nlink(), 0U);
    EXPECT_EQ(tree.space.counts()->orphans, 1U);
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, HardLinksShareAnInode) {
    TestTree tree;
    InodeId directory = tree.mkdir(kRootInode, "d");
    InodeId file = tree.make(kRootInode, "f");

    auto linked = tree.link(file, directory, "g");

    EXPECT_EQ(linked->attr().nlink(), 2U);
    EXPECT_EQ(linked->attr().ctime(), tree.now);
    EXPECT_EQ(linked->parent().mtime(), tree.now);
    EXPECT_EQ(outcome(tree.link(file, directory, "g")), "Exists");
    EXPECT_EQ(outcome(tree.link(directory, kRootInode, "x")), "NotPermitted");
    EXPECT_EQ(outcome(tree.link(InodeId(999), kRootInode, "x")), "StaleHandle");
    auto removed = tree.unlink(kRootInode, "f");
    EXPECT_EQ(removed->attr().nlink(), 1U);
    EXPECT_EQ(removed->attr().ctime(), tree.now);
    EXPECT_TRUE(tree.effects.died.empty());
    EXPECT_EQ(tree.lookup(directory, "g")->attr().ino(), file.value);
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, LinksHaveABound) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    InodeId directory = tree.mkdir(kRootInode, "d");
    for (InodeId ino : {file, directory}) {
        Inode inode = decode_inode(inode_key(ino), **tree.store.get(inode_key(ino))).value();
        inode.nlink = kLinksMax;
        KvBatch batch;
        batch.put(inode_key(ino), encode(inode));
        tree.commit(batch);
    }
    tree.mkdir(kRootInode, "e");

    EXPECT_EQ(outcome(tree.link(file, kRootInode, "g")), "TooManyLinks");
    EXPECT_EQ(outcome(tree.create(directory, "s", S_IFDIR | 0755)), "TooManyLinks");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "e", directory, "e")), "TooManyLinks");
    EXPECT_EQ(outcome(tree.create(directory, "f")), "ok");
}

TEST(NamespaceTest, RenameMovesAndReplaces) {
    TestTree tree;
    InodeId a = tree.mkdir(kRootInode, "a");
    InodeId b = tree.mkdir(kRootInode, "b");
    InodeId moved = tree.make(a, "f");
    InodeId replaced = tree.make(b, "g");

    auto reply = tree.rename(a, "f", b, "g");

    ASSERT_EQ(outcome(reply), "ok");
    EXPECT_EQ(reply->attr().ino(), moved.value);
    EXPECT_EQ(reply->attr().ctime(), tree.now);
    EXPECT_EQ(reply->replaced().ino(), replaced.value);
    EXPECT_EQ(reply->parent().mtime(), tree.now);
    EXPECT_EQ(reply->parent().size(), 0U);
    EXPECT_EQ(reply->parent2().mtime(), tree.now);
    EXPECT_EQ(reply->parent2().size(), 1U);
    EXPECT_FALSE(reply->orphaned());
    EXPECT_EQ(outcome(tree.lookup(a, "f")), "NotFound");
    EXPECT_EQ(tree.lookup(b, "g")->attr().ino(), moved.value);
    EXPECT_EQ(outcome(tree.getattr(replaced)), "StaleHandle");
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, RenameOfADirectoryMovesItsParentAndLinks) {
    TestTree tree;
    InodeId a = tree.mkdir(kRootInode, "a");
    InodeId b = tree.mkdir(kRootInode, "b");
    InodeId moved = tree.mkdir(a, "m");
    tree.mkdir(b, "empty");

    ASSERT_EQ(outcome(tree.rename(a, "m", b, "empty")), "ok");

    EXPECT_EQ(tree.stat(a).nlink(), 2U);
    EXPECT_EQ(tree.stat(b).nlink(), 3U);
    EXPECT_EQ(tree.stat(moved).parent(), b.value);
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, RenameRefusesWhatPosixRefuses) {
    TestTree tree;
    InodeId a = tree.mkdir(kRootInode, "a");
    InodeId below = tree.mkdir(a, "b");
    InodeId deep = tree.mkdir(below, "c");
    tree.make(kRootInode, "f");
    tree.mkdir(kRootInode, "empty");

    EXPECT_EQ(outcome(tree.rename(kRootInode, "a", a, "x")), "InvalidArgument");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "a", deep, "x")), "InvalidArgument");
    EXPECT_EQ(outcome(tree.rename(below, "c", kRootInode, "a")), "NotEmpty");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "f", kRootInode, "a")), "IsDirectory");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "a", kRootInode, "f")), "NotDirectory");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "empty", kRootInode, "a")), "NotEmpty");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "none", kRootInode, "x")), "NotFound");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "f", kRootInode, "x", 3)), "InvalidArgument");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "f", kRootInode, "x", 4)), "InvalidArgument");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "f", kRootInode, "a", kNoReplace)), "Exists");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "f", kRootInode, "x", kExchange)), "NotFound");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "a", deep, "x", kExchange)), "NotFound");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "a", below, "c", kExchange)), "InvalidArgument");
    EXPECT_EQ(outcome(tree.rename(below, "c", kRootInode, "a", kExchange)), "InvalidArgument");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "f", kRootInode, "x", kNoReplace)), "ok");
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, RenameBetweenNamesOfOneInodeDoesNothing) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    ASSERT_TRUE(tree.link(file, kRootInode, "g").ok());
    pb::Attr before = tree.stat(file);

    EXPECT_EQ(outcome(tree.rename(kRootInode, "f", kRootInode, "g")), "ok");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "f", kRootInode, "f")), "ok");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "f", kRootInode, "g", kExchange)), "ok");

    EXPECT_EQ(tree.stat(file).SerializeAsString(), before.SerializeAsString());
    EXPECT_TRUE(tree.lookup(kRootInode, "f").ok());
    EXPECT_TRUE(tree.lookup(kRootInode, "g").ok());
}

TEST(NamespaceTest, ExchangeSwapsAcrossTypesAndParents) {
    TestTree tree;
    InodeId a = tree.mkdir(kRootInode, "a");
    InodeId b = tree.mkdir(kRootInode, "b");
    InodeId directory = tree.mkdir(a, "x");
    tree.make(directory, "content");
    InodeId file = tree.make(b, "y");

    auto reply = tree.rename(a, "x", b, "y", kExchange);

    ASSERT_EQ(outcome(reply), "ok");
    EXPECT_EQ(reply->replaced().ino(), file.value);
    EXPECT_EQ(tree.lookup(a, "x")->attr().ino(), file.value);
    EXPECT_EQ(tree.lookup(b, "y")->attr().ino(), directory.value);
    EXPECT_EQ(tree.stat(a).nlink(), 2U);
    EXPECT_EQ(tree.stat(b).nlink(), 3U);
    EXPECT_EQ(tree.stat(directory).parent(), b.value);
    EXPECT_EQ(tree.stat(file).ctime(), reply->attr().ctime());
    ASSERT_EQ(outcome(tree.rename(b, "y", a, "x", kExchange)), "ok");
    EXPECT_EQ(tree.stat(a).nlink(), 3U);
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, RenameOverAnOpenFileLeavesAnOrphan) {
    TestTree tree;
    tree.make(kRootInode, "f");
    InodeId target = tree.make(kRootInode, "g");
    tree.open.insert(target);

    auto reply = tree.rename(kRootInode, "f", kRootInode, "g");

    EXPECT_TRUE(reply->orphaned());
    EXPECT_EQ(reply->replaced().nlink(), 0U);
    EXPECT_EQ(tree.stat(target).ctime(), reply->attr().ctime());
    EXPECT_TRUE(tree.fsck().clean());
}

TEST(NamespaceTest, ReadDirPagesInNameOrder) {
    TestTree tree;
    InodeId directory = tree.mkdir(kRootInode, "d");
    std::vector<std::string> expected;
    for (int i = 0; i < 25; ++i) {
        expected.push_back("n" + std::to_string(i));
        tree.make(directory, expected.back());
    }
    std::sort(expected.begin(), expected.end());

    std::vector<std::string> seen;
    std::string after;
    bool eof = false;
    for (int pages = 0; !eof && pages < 10; ++pages) {
        auto page = tree.readdir(directory, after, 7);
        ASSERT_EQ(outcome(page), "ok");
        EXPECT_LE(page->entries_size(), 7);
        for (const pb::DirEntry& entry : page->entries()) {
            seen.push_back(entry.name());
            EXPECT_EQ(entry.attr().ino(), entry.ino());
            EXPECT_EQ(entry.mode(), uint32_t{S_IFREG});
        }
        after = seen.back();
        eof = page->eof();
    }

    EXPECT_TRUE(eof);
    EXPECT_EQ(seen, expected);
    EXPECT_EQ(outcome(tree.readdir(directory, std::string(256, 'x'), 0)), "InvalidArgument");
    EXPECT_TRUE(tree.readdir(directory, "zzz", 0)->eof());
}

TEST(NamespaceTest, ReadDirPagesAreBoundedInBytes) {
    TestTree tree;
    constexpr int kCount = 300;
    for (int i = 0; i < kCount; ++i) {
        ASSERT_TRUE(tree.symlink(kRootInode, std::to_string(i), std::string(4095, 'x')).ok());
    }

    auto page = tree.readdir(kRootInode, "", 0);

    EXPECT_LT(page->entries_size(), kCount);
    EXPECT_FALSE(page->eof());
    EXPECT_LT(page->ByteSizeLong(), Namespace::kReadDirBytesMax + 8 * KiB);
}

TEST(NamespaceTest, StatFsCountsInodes) {
    TestTree tree;
    tree.make(kRootInode, "f");
    tree.mkdir(kRootInode, "d");
    ASSERT_TRUE(tree.unlink(kRootInode, "f").ok());
    pb::MetaRequest request;
    request.mutable_statfs();

    EXPECT_EQ(tree.run(request)->statfs().files(), 2U);
}

TEST(NamespaceTest, UnknownOperationIsRefused) {
    TestTree tree;
    EXPECT_EQ(outcome(tree.run(pb::MetaRequest())), "Unimplemented");
}

TEST(NamespaceTest, FailingOperationOnlyReads) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    pb::MetaRequest request;
    request.mutable_link()->set_ino(file.value);
    request.mutable_link()->set_new_parent(1);
    request.mutable_link()->set_new_name("f");

    auto touched = tree.space.footprint(request);

    ASSERT_EQ(touched->size(), 2U);
    for (const Touched& one : *touched) {
        EXPECT_EQ(one.access, Access::kRead);
    }
}

TEST(NamespaceTest, RepliesAreKeptUntilForgotten) {
    TestTree tree;
    auto reply = tree.create(kRootInode, "f");
    KvBatch batch;
    for (uint64_t seq : {3, 4, 5, 1000}) {
        Namespace::store_reply(SessionId(7), seq, *reply, batch);
    }
    Namespace::store_reply(SessionId(8), 1, *reply, batch);
    tree.commit(batch);

    EXPECT_EQ((*tree.space.find_reply(SessionId(7), 3))->SerializeAsString(),
              reply->SerializeAsString());
    EXPECT_FALSE(tree.space.find_reply(SessionId(7), 2)->has_value());
    KvBatch forget;
    Namespace::forget_replies(SessionId(7), 0, 5, forget);
    Namespace::forget_replies(SessionId(7), 9, 9, forget);
    tree.commit(forget);
    EXPECT_FALSE(tree.space.find_reply(SessionId(7), 4)->has_value());
    EXPECT_TRUE(tree.space.find_reply(SessionId(7), 5)->has_value());
    KvBatch wide;
    Namespace::forget_replies(SessionId(7), 5, 1000, wide);
    tree.commit(wide);
    EXPECT_FALSE(tree.space.find_reply(SessionId(7), 5)->has_value());
    EXPECT_TRUE(tree.space.find_reply(SessionId(7), 1000)->has_value());
    KvBatch session;
    Namespace::forget_session(SessionId(7), session);
    tree.commit(session);
    EXPECT_FALSE(tree.space.find_reply(SessionId(7), 1000)->has_value());
    EXPECT_TRUE(tree.space.find_reply(SessionId(8), 1)->has_value());
}

TEST(NamespaceTest, CorruptInodeIsAnErrorThatNamesIt) {
    TestTree tree;
    InodeId file = tree.make(kRootInode, "f");
    KvBatch batch;
    batch.put(inode_key(file), "rubbish");
    tree.commit(batch);

    auto reply = tree.lookup(kRootInode, "f");

    EXPECT_EQ(outcome(reply), "Corrupt");
    EXPECT_NE(reply.error().detail.find("i 2"), std::string::npos) << reply.error().detail;
    EXPECT_FALSE(tree.fsck().clean());
}

}  // namespace
}  // namespace kdfs::mds::testing
