#include "kdfs/rt/sync.h"
#include "mds/fsck.h"
#include "tests/unit/mds_support.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <deque>
#include <optional>
#include <string>
#include <utility>

namespace kdfs::mds::testing {
namespace {

class QueueScheduler final : public Scheduler {
public:
    TimePoint now() const override { return {}; }
    void post(Function<void()> callback) override { queue_.push_back(std::move(callback)); }
    TimerId call_at(TimePoint, Function<void()>) override { return 0; }
    void cancel(TimerId) override {}
    void run() {
        while (!queue_.empty()) {
            Function<void()> next = std::move(queue_.front());
            queue_.pop_front();
            next();
        }
    }

private:
    std::deque<Function<void()>> queue_;
};

// /d/f with an xattr, /g, an orphan, dead data, a trim.
void populate(TestTree& tree) {
    InodeId directory = tree.mkdir(kRootInode, "d");
    InodeId file = tree.make(directory, "f");
    ASSERT_TRUE(tree.setxattr(file, "user.a", "1").ok());
    ASSERT_TRUE(tree.set_size(file, 100).ok());
    ASSERT_TRUE(tree.set_size(file, 50).ok());
    tree.make(kRootInode, "g");
    InodeId orphan = tree.make(kRootInode, "o");
    tree.open.insert(orphan);
    ASSERT_TRUE(tree.unlink(kRootInode, "o").ok());
    tree.make(kRootInode, "gone");
    ASSERT_TRUE(tree.unlink(kRootInode, "gone").ok());
}

Inode load(TestTree& tree, InodeId ino) {
    return decode_inode(inode_key(ino), **tree.store.get(inode_key(ino))).value();
}

// Writes the record straight into the store and says what fsck finds first.
std::string damage(TestTree& tree,
                   const std::string& key,
                   const std::optional<std::string>& value) {
    KvBatch batch;
    if (value) {
        batch.put(key, *value);
    } else {
        batch.erase(key);
    }
    tree.commit(batch);
    NamespaceReport report = tree.fsck();
    return report.clean() ? "clean" : report.problems.front();
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST(NamespaceCheckTest, HealthyStoreIsCleanAndOwnsItsData) {
    TestTree tree;
    populate(tree);

    NamespaceReport report = tree.fsck();

    EXPECT_TRUE(report.clean());
    EXPECT_EQ(report.counts.inodes, 5U);
    EXPECT_EQ(report.counts.orphans, 1U);
    EXPECT_EQ(report.counts.gc_queued, 1U);
    EXPECT_EQ(report.counts.trims, 1U);
    EXPECT_EQ(report.directories, 2U);
    EXPECT_EQ(report.owned.size(), 4U);
    EXPECT_EQ(report.owned[0].size_bytes, 50U);
    EXPECT_FALSE(report.owned[3].ino);
}

TEST(NamespaceCheckTest, ErasingAnyRecordIsNoticed) {
    TestTree healthy;
    populate(healthy);
    for (const auto& [key, value] : healthy.medium.map()) {
        TestTree tree;
        populate(tree);
        EXPECT_NE(damage(tree, key, std::nullopt), "clean") << describe_key(key);
    }
}

TEST(NamespaceCheckTest, RubbishInAnyRecordIsNoticed) {
    TestTree healthy;
    populate(healthy);
    for (const auto& [key, value] : healthy.medium.map()) {
        if (key[0] == static_cast<char>(Table::kOrphan)) {
            continue;  // its value says nothing
        }
        TestTree tree;
        populate(tree);
        EXPECT_TRUE(contains(damage(tree, key, "\x07"), "kdfs fsck")) << describe_key(key);
    }
}

TEST(NamespaceCheckTest, WrongLinksAreNamed) {
    TestTree tree;
    populate(tree);
    Inode file = load(tree, InodeId(3));
    file.nlink = 2;

    std::string problem = damage(tree, inode_key(file.ino), encode(file));

    EXPECT_TRUE(contains(problem, "inode 3")) << problem;
    EXPECT_TRUE(contains(problem, "links is recorded as 2 and found as 1")) << problem;
}

TEST(NamespaceCheckTest, DirectoryWithTwoNamesIsNoticed) {
    TestTree tree;
    populate(tree);

    std::string problem =
        damage(tree, dentry_key(kRootInode, "again"), encode(Dentry{InodeId(2), S_IFDIR}));

    EXPECT_NE(problem, "clean");
}

TEST(NamespaceCheckTest, CycleOfDirectoriesIsNoticed) {
    TestTree tree;
    InodeId a = tree.mkdir(kRootInode, "a");
    InodeId b = tree.mkdir(a, "b");
    Inode inode = load(tree, a);
    inode.parent = b;
    KvBatch batch;
    batch.put(inode_key(a), encode(inode));
    tree.commit(batch);

    bool lost = false;
    for (const std::string& problem : tree.fsck().problems) {
        lost = lost || contains(problem, "no way up to the root");
    }

    EXPECT_TRUE(lost);
    InodeId other = tree.mkdir(kRootInode, "o");
    EXPECT_EQ(outcome(tree.space.footprint(pb::MetaRequest())), "ok");
    EXPECT_EQ(outcome(tree.rename(kRootInode, "o", b, "o")), "Corrupt");
    EXPECT_EQ(tree.stat(other).parent(), 1U);
}

TEST(NamespaceCheckTest, DataWithTwoOwnersIsNoticed) {
    TestTree tree;
    populate(tree);
    Inode file = load(tree, InodeId(3));
    file.data = DataId(4);

    EXPECT_TRUE(contains(damage(tree, inode_key(file.ino), encode(file)), "data 4 belongs to"));
}

Task<void> check_into(KvStore& store, std::optional<NamespaceReport>& out) {
    auto report = co_await check_namespace(store);
    if (report.ok()) {
        out = std::move(report).value();
    }
}

TEST(NamespaceCheckTest, WalkLoadsAColdStore) {
    TestTree tree;
    populate(tree);
    TestKv cold(tree.medium, true);
    QueueScheduler scheduler;
    TaskScope scope(scheduler);
    std::optional<NamespaceReport> report;

    scope.spawn(check_into(cold, report));
    scheduler.run();

    ASSERT_TRUE(report.has_value());
    EXPECT_TRUE(report->clean());
    EXPECT_EQ(report->counts.inodes, 5U);
}

}  // namespace
}  // namespace kdfs::mds::testing
