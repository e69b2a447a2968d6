#include "kdfs/base/random.h"
#include "mds/lease_table.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

namespace kdfs::mds {
namespace {

constexpr SessionId kA{1};
constexpr SessionId kB{2};
constexpr InodeId kFile{100};

TimePoint at(int64_t milliseconds) { return TimePoint(std::chrono::milliseconds(milliseconds)); }

std::vector<Touched> touch(InodeId ino, Access access) { return {{ino, access}}; }

pb::ReleaseOne giving(InodeId ino, pb::LeaseMode keep, bool still_open, uint64_t lease_seq) {
    pb::ReleaseOne item;
    item.set_ino(ino.value);
    item.set_keep(keep);
    item.set_still_open(still_open);
    item.set_lease_seq(lease_seq);
    return item;
}

TEST(LeaseTableTest, TheFirstGetsTheExclusiveLeaseAndTheSecondConflicts) {
    LeaseTable table;
    EXPECT_EQ(table.grant(kA, kFile, pb::LEASE_EXCLUSIVE, at(0)).mode(), pb::LEASE_EXCLUSIVE);

    auto conflicts = table.conflicts(kB, touch(kFile, Access::kRead));

    ASSERT_EQ(conflicts.size(), 1U);
    EXPECT_EQ(conflicts[0].session, kA);
    EXPECT_EQ(conflicts[0].keep, pb::LEASE_READ);
    EXPECT_TRUE(table.conflicts(kA, touch(kFile, Access::kChange)).empty());
    EXPECT_EQ(table.grant(kB, kFile, pb::LEASE_READ, at(0)).mode(), pb::LEASE_NONE);
}

TEST(LeaseTableTest, ReadersShareUntilSomebodyChanges) {
    LeaseTable table;
    EXPECT_EQ(table.grant(kA, kFile, pb::LEASE_READ, at(0)).mode(), pb::LEASE_READ);
    EXPECT_EQ(table.grant(kB, kFile, pb::LEASE_READ, at(0)).mode(), pb::LEASE_READ);
    EXPECT_TRUE(table.conflicts(kB, touch(kFile, Access::kRead)).empty());

    auto conflicts = table.conflicts(kB, touch(kFile, Access::kChange));

    ASSERT_EQ(conflicts.size(), 1U);
    EXPECT_EQ(conflicts[0], (Conflict{kFile, kA, pb::LEASE_NONE}));
}

TEST(LeaseTableTest, AnExclusiveLeaseGivenBackWithOpenFilesLeavesAWriter) {
    LeaseTable table;
    table.open(kA, kFile, true);
    uint64_t seq = table.grant(kA, kFile, pb::LEASE_EXCLUSIVE, at(0)).lease_seq();
    ASSERT_TRUE(table.release(kA, giving(kFile, pb::LEASE_NONE, true, seq)));
    table.open(kB, kFile, true);

    EXPECT_EQ(table.grant(kB, kFile, pb::LEASE_EXCLUSIVE, at(1000)).mode(), pb::LEASE_NONE);
    EXPECT_EQ(table.grant(kA, kFile, pb::LEASE_EXCLUSIVE, at(1000)).mode(), pb::LEASE_NONE);
}

TEST(LeaseTableTest, AnExclusiveLeaseDoesNotBecomeAReadLeaseWhileFilesAreOpen) {
    LeaseTable table;
    uint64_t seq = table.grant(kA, kFile, pb::LEASE_EXCLUSIVE, at(0)).lease_seq();

    EXPECT_TRUE(table.release(kA, giving(kFile, pb::LEASE_READ, true, seq)));

    EXPECT_EQ(table.conflicts(kB, touch(kFile, Access::kRead)).size(), 1U);
    EXPECT_FALSE(table.holds_exclusive(kA, kFile));
    EXPECT_TRUE(table.release(kA, giving(kFile, pb::LEASE_NONE, true, seq)));
    EXPECT_TRUE(table.conflicts(kB, touch(kFile, Access::kRead)).empty());
    EXPECT_EQ(table.grant(kB, kFile, pb::LEASE_READ, at(1000)).mode(), pb::LEASE_NONE);
}

TEST(LeaseTableTest, AReleaseOfAnOlderGrantIsIgnored) {
    LeaseTable table;
    uint64_t seq = table.grant(kA, kFile, pb::LEASE_READ, at(0)).lease_seq();
    table.grant(kA, kFile, pb::LEASE_READ, at(0));

    EXPECT_FALSE(table.release(kA, giving(kFile, pb::LEASE_NONE, false, seq)));

    EXPECT_EQ(table.holding(kA, kFile)->mode, pb::LEASE_READ);
}

TEST(LeaseTableTest, ARecentlyRecalledInodeGetsNoExclusiveLease) {
    LeaseTable table;
    uint64_t seq = table.grant(kA, kFile, pb::LEASE_EXCLUSIVE, at(0)).lease_seq();
    table.release(kA, giving(kFile, pb::LEASE_NONE, false, seq));
    table.note_recall(kFile, at(0));

    EXPECT_EQ(table.grant(kB, kFile, pb::LEASE_EXCLUSIVE, at(99)).mode(), pb::LEASE_READ);
    table.drop(kB, kFile);
    EXPECT_EQ(table.grant(kB, kFile, pb::LEASE_EXCLUSIVE, at(100)).mode(), pb::LEASE_EXCLUSIVE);
}

TEST(LeaseTableTest, ReclaimRefusesWhatContradictsOthers) {
    LeaseTable table;
    pb::HeldLease held;
    held.set_ino(kFile.value);
    held.set_mode(pb::LEASE_EXCLUSIVE);
    held.set_open(true);
    held.set_lease_seq(7);
    EXPECT_TRUE(table.restore(kA, held));
    EXPECT_FALSE(table.restore(kB, held));

    EXPECT_TRUE(table.holds_exclusive(kA, kFile));
    EXPECT_FALSE(table.holds_exclusive(kB, kFile));
    EXPECT_TRUE(table.holding(kB, kFile)->open);
}

TEST(LeaseTableTest, AResumedClientKeepsWhatItClaimsAndNoReadLeaseBesideItsOwnWriting) {
    LeaseTable table;
    table.open(kA, kFile, true);
    uint64_t seq = table.grant(kA, kFile, pb::LEASE_EXCLUSIVE, at(0)).lease_seq();
    pb::HeldLease held;
    held.set_ino(kFile.value);
    held.set_open(true);
    held.set_lease_seq(seq);
    held.set_mode(pb::LEASE_EXCLUSIVE);
    EXPECT_TRUE(table.reaffirm(kA, held));
    EXPECT_TRUE(table.holds_exclusive(kA, kFile));

    // It gave the lease back in an answer that got lost, and may write without it.
    held.set_mode(pb::LEASE_READ);
    EXPECT_FALSE(table.reaffirm(kA, held));

    EXPECT_EQ(table.holding(kA, kFile)->mode, pb::LEASE_NONE);
    EXPECT_TRUE(table.holding(kA, kFile)->writer);
}

TEST(LeaseTableTest, LeasesBeyondTheBoundAreNamedOldestFirstAndOpenOnesSpared) {
    LeaseTable table(1, 3);
    for (uint64_t i = 1; i <= 6; ++i) {
        table.grant(kA, InodeId(i), pb::LEASE_READ, at(0));
    }
    table.open(kA, InodeId(1), false);
    table.grant(kA, InodeId(2), pb::LEASE_READ, at(0));

    std::vector<InodeId> victims = table.excess(kA, 2);

    EXPECT_EQ(victims, (std::vector<InodeId>{InodeId(3), InodeId(4)}));
    EXPECT_EQ(table.lease_count(kA), 6U);
}

TEST(LeaseTableTest, AnEndedSessionLeavesNothing) {
    LeaseTable table;
    table.open(kA, kFile, true);
    table.grant(kA, kFile, pb::LEASE_EXCLUSIVE, at(0));
    table.grant(kA, InodeId(7), pb::LEASE_READ, at(0));

    EXPECT_EQ(table.drop_session(kA), (std::vector<InodeId>{kFile}));

    EXPECT_FALSE(table.is_open(kFile));
    EXPECT_EQ(table.lease_count(kA), 0U);
    EXPECT_EQ(table.grant(kB, kFile, pb::LEASE_EXCLUSIVE, at(0)).mode(), pb::LEASE_EXCLUSIVE);
}

// What must hold of one inode after any history.
void expect_sound(const LeaseTable& table, InodeId ino, uint64_t sessions) {
    size_t readers = 0;
    size_t exclusive = 0;
    size_t writers = 0;
    for (uint64_t s = 1; s <= sessions; ++s) {
        auto h = table.holding(SessionId(s), ino);
        if (!h) {
            continue;
        }
        readers += h->mode == pb::LEASE_READ ? 1 : 0;
        exclusive += h->mode == pb::LEASE_EXCLUSIVE ? 1 : 0;
        writers += h->writer && h->mode == pb::LEASE_NONE ? 1 : 0;
        EXPECT_FALSE(h->writer && h->mode == pb::LEASE_READ);
    }
    EXPECT_LE(exclusive, 1U);
    EXPECT_FALSE(exclusive == 1 && readers > 0);
    EXPECT_FALSE(exclusive == 1 && writers > 0);
    EXPECT_FALSE(readers > 0 && writers > 0);
}

TEST(LeaseTableTest, RandomHistoriesKeepTheInvariants) {
    constexpr uint64_t kSessions = 4;
    constexpr uint64_t kInodes = 5;
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        Random random(seed);
        LeaseTable table;
        for (int step = 0; step < 2000; ++step) {
            SessionId session(random.range(1, kSessions));
            InodeId ino(random.range(1, kInodes));
            TimePoint now = at(step * 20);
            bool write = random.chance(300000);
            auto access = write ? Access::kChange : Access::kRead;
            for (const Conflict& c : table.conflicts(session, touch(ino, access))) {
                // The holder answers, as it likes within what it may keep.
                bool open = random.chance(500000);
                pb::LeaseMode keep = open || random.chance(500000) ? pb::LEASE_NONE : c.keep;
                uint64_t seq = table.holding(c.session, ino)->lease_seq;
                table.release(c.session, giving(ino, keep, open, seq));
                table.note_recall(ino, now);
            }
            ASSERT_TRUE(table.conflicts(session, touch(ino, access)).empty());
            if (write || random.chance(300000)) {
                table.open(session, ino, write);
            }
            table.grant(session, ino, static_cast<pb::LeaseMode>(random.below(3)), now);
            if (random.chance(20000)) {
                table.drop_session(SessionId(random.range(1, kSessions)));
            }
            for (uint64_t i = 1; i <= kInodes; ++i) {
                expect_sound(table, InodeId(i), kSessions);
            }
        }
    }
}

}  // namespace
}  // namespace kdfs::mds
