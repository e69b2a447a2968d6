// Leases and requests that come again.

#include "tests/sim/mds_server_fixture.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace kdfs::sim::lone_mds {
namespace {

class MdsLeaseTest : public MdsServerTest {};

// As a retry does whose first attempt was held up on the way.
TEST_P(MdsLeaseTest, ARequestToWriteThatComesAgainTakesNoReadLeaseUnasked) {
    open(0);
    open(1);
    pb::MetaRequest creation = create(1, "f");
    auto made = meta(1, creation);
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    uint64_t ino = made->attr().ino();
    ASSERT_TRUE(meta(0, opening(ino, false)).ok());
    ASSERT_TRUE(close(1, ino).ok());
    pb::MetaRequest late = opening(ino, true);
    for (const pb::MetaRequest& again : {late, creation}) {
        auto lease = meta(1, getattr(ino));
        ASSERT_TRUE(lease.ok());
        ASSERT_EQ(lease->grant().mode(), pb::LEASE_READ);
        uint64_t before = client(1).recalls();

        auto answer = meta(1, again);

        ASSERT_TRUE(answer.ok()) << answer.error().to_string();
        EXPECT_EQ(answer->grant().mode(), pb::LEASE_NONE);
        EXPECT_EQ(client(1).recalls(), before + 1);
        ASSERT_TRUE(close(1, ino).ok());
    }
}

TEST_P(MdsLeaseTest, AnOpenWhoseAnswerHasArrivedIsRefusedWhenItComesAgain) {
    open(0);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    uint64_t ino = made->attr().ino();
    pb::MetaRequest request = opening(ino, true);
    request.set_open_seq(1);
    ASSERT_TRUE(meta(0, request).ok());
    ASSERT_TRUE(meta(0, request).ok());
    pb::MetaRequest next = getattr(ino);
    next.set_opens_below(2);
    ASSERT_TRUE(meta(0, next).ok());

    auto again = meta(0, request);

    EXPECT_EQ(again.error().code, Errc::kInvalidArgument);
}

// The repetition comes after its client has the answer, and before it says so.
TEST_P(MdsLeaseTest, ClosingAFileClosesWhatARepetitionOpened) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    uint64_t ino = made->attr().ino();
    ASSERT_TRUE(close(0, ino).ok());
    ASSERT_TRUE(meta(1, opening(ino, false)).ok());
    pb::MetaRequest request = opening(ino, true);
    request.set_open_seq(1);
    auto opened = meta(0, request);
    ASSERT_TRUE(opened.ok()) << opened.error().to_string();
    ASSERT_EQ(opened->grant().mode(), pb::LEASE_NONE);
    ASSERT_TRUE(meta(0, request).ok());
    pb::MetaRequest closing;
    closing.set_seq(client(0).next_seq());
    closing.mutable_release()->add_items()->set_ino(ino);
    closing.mutable_release()->mutable_items(0)->set_lease_seq(opened->grant().lease_seq());
    ASSERT_TRUE(meta(0, closing).ok());

    auto lease = meta(1, getattr(ino));

    ASSERT_TRUE(lease.ok()) << lease.error().to_string();
    EXPECT_EQ(lease->grant().mode(), pb::LEASE_READ) << "nobody else has it open for writing";
}

TEST_P(MdsLeaseTest, AnUnlinkedFileThatIsClosedAfterARestartWaitsForThoseWhoAreNotBackYet) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    uint64_t ino = made->attr().ino();
    ASSERT_TRUE(meta(1, opening(ino, true)).ok());
    ASSERT_TRUE(meta(1, remove(1, "f")).ok());
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(1);
    ASSERT_TRUE(close(1, ino).ok());
    open(1);  // Also a resumption that closes a file does not free it.

    open(0);

    auto kept = meta(0, getattr(ino));
    EXPECT_TRUE(kept.ok()) << kept.error().to_string();
    ASSERT_TRUE(close(0, ino).ok());
    pass(std::chrono::seconds(2));
    EXPECT_EQ(meta(0, getattr(ino)).error().code, Errc::kStaleHandle);
}

TEST_P(MdsLeaseTest, OfAFileWithoutNamesOnlyWhoHasItOpenGetsALease) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    uint64_t ino = made->attr().ino();
    ASSERT_TRUE(close(0, ino).ok());
    ASSERT_TRUE(meta(1, opening(ino, false)).ok());
    ASSERT_TRUE(meta(1, remove(1, "f")).ok());

    auto other = meta(0, getattr(ino));
    ASSERT_TRUE(other.ok()) << other.error().to_string();
    EXPECT_EQ(other->grant().mode(), pb::LEASE_NONE);
    auto opener = meta(1, getattr(ino));
    ASSERT_TRUE(opener.ok()) << opener.error().to_string();
    EXPECT_EQ(opener->grant().mode(), pb::LEASE_READ);
}

// Who removed it has not heard the answer, and opens it under its lease without a word.
TEST_P(MdsLeaseTest, AnUnlinkedFileThatIsClosedUnderALeaseLivesUntilTheLeaseIsGivenBack) {
    open(0);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    uint64_t ino = made->attr().ino();
    ASSERT_TRUE(meta(0, remove(0, "f")).ok());

    pb::MetaRequest closing;
    closing.set_seq(client(0).next_seq());
    pb::ReleaseOne* item = closing.mutable_release()->add_items();
    item->set_ino(ino);
    item->set_keep(pb::LEASE_READ);
    item->set_lease_seq(client(0).held().at(ino).lease_seq());
    ASSERT_TRUE(meta(0, closing).ok());

    auto kept = meta(0, opening(ino, true));
    EXPECT_TRUE(kept.ok()) << kept.error().to_string();
    ASSERT_TRUE(close(0, ino).ok());
    EXPECT_EQ(meta(0, getattr(ino)).error().code, Errc::kStaleHandle);
}

TEST_P(MdsLeaseTest, AnUnlinkedFileOfWhichARestartFindsALeaseLivesUntilTheLeaseIsGivenBack) {
    open(0);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    uint64_t ino = made->attr().ino();
    client(0).claim(ino, pb::LEASE_EXCLUSIVE);
    ASSERT_TRUE(meta(0, remove(0, "f")).ok());
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(0);
    pass(std::chrono::seconds(2));

    auto kept = meta(0, opening(ino, true));
    EXPECT_TRUE(kept.ok()) << kept.error().to_string();
    ASSERT_TRUE(close(0, ino).ok());
    EXPECT_EQ(meta(0, getattr(ino)).error().code, Errc::kStaleHandle);
}

TEST_P(MdsLeaseTest, WhoIsEndedForARecallItDoesNotAnswerKeepsItsLeasesUntilItsTimeIsOver) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    client(0).withhold();

    auto seen = meta(1, getattr(made->attr().ino()));
    for (int again = 0; again < 3 && !seen.ok(); ++again) {
        seen = meta(1, getattr(made->attr().ino()));
    }

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    // The client may not have heard that it was ended.
    TimePoint now = clients_[0]->env().now();
    EXPECT_GE(now, client(0).renewed() + mds::Options().session_lease);
}

TEST_P(MdsLeaseTest, AChangeThatComesAgainIsAnsweredWithTheAttributesOfNow) {
    open(0);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    pb::MetaRequest rename;
    rename.set_seq(client(0).next_seq());
    rename.mutable_rename()->set_parent(kRootInode.value);
    rename.mutable_rename()->set_name("f");
    rename.mutable_rename()->set_new_parent(kRootInode.value);
    rename.mutable_rename()->set_new_name("g");
    auto lost = meta(0, rename);
    ASSERT_TRUE(lost.ok()) << lost.error().to_string();
    ASSERT_EQ(lost->attr().ino(), made->attr().ino());
    pb::MetaRequest flush;
    flush.set_seq(client(0).next_seq());
    flush.mutable_flush()->set_ino(made->attr().ino());
    flush.mutable_flush()->set_size(4711);
    ASSERT_TRUE(meta(0, flush).ok());

    auto again = meta(0, rename);

    ASSERT_TRUE(again.ok()) << again.error().to_string();
    EXPECT_EQ(again->attr().ino(), made->attr().ino());
    EXPECT_EQ(again->attr().size(), 4711U);
}

TEST_P(MdsLeaseTest, WhatAnEndedSessionHeldIsKeptUntilEveryDaemonActsByTheMapThatFencesIt) {
    client(0).set_name("gone");
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    clients_[0]->cut_power();
    storage(1).act_by_this_map(true);
    uint64_t epoch = storage(0).epoch();
    (void)run_on(*clients_[1], client(1).end_sessions("gone"), std::chrono::seconds(2));
    pass(std::chrono::seconds(1));
    ASSERT_GT(storage(0).epoch(), epoch);

    auto early =
        run_on(*clients_[1], client(1).meta(getattr(made->attr().ino())), std::chrono::seconds(5));
    EXPECT_FALSE(early.has_value()) << "a daemon may still take the writes of that session";

    storage(1).act_by_this_map(false);
    auto seen = meta(1, getattr(made->attr().ino()));
    EXPECT_TRUE(seen.ok()) << seen.error().to_string();
}

TEST_P(MdsLeaseTest, AfterAPowerCutNoSessionGetsTheNumberThatAnotherClientHeard) {
    open(0);
    mds_->cut_power();
    mds_->boot();
    pass(std::chrono::seconds(1));

    open(1);

    EXPECT_NE(client(1).session(), client(0).session());
}

TEST_P(MdsLeaseTest, AfterAPowerCutNoFileGetsTheNumbersThatAClientSaw) {
    open(0);
    client(0).forget_caches();
    std::set<uint64_t> inodes;
    std::set<uint64_t> data;
    for (std::string name : {"f1", "f2", "f3", "f4", "f5", "g1", "g2", "g3", "g4", "g5"}) {
        if (name == "g1") {
            mds_->cut_power();
            mds_->boot();
            pass(std::chrono::seconds(1));
            open(0);
        }

        auto made = meta(0, create(0, name));

        ASSERT_TRUE(made.ok()) << made.error().to_string();
        EXPECT_TRUE(inodes.insert(made->attr().ino()).second) << name;
        EXPECT_TRUE(data.insert(made->attr().data()).second) << name;
    }
}

TEST_P(MdsLeaseTest, AfterARestartNobodyIsServedBeforeARefusedClaimIsHeardOf) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    client(1).claim(made->attr().ino(), pb::LEASE_READ);
    mds_->kill();
    mds_->boot();
    open(0);
    client(1).freeze();
    open(1);
    ASSERT_FALSE(client(1).held().contains(made->attr().ino())) << "the claim is refused";
    TimePoint begin = shared_.clock.now();

    auto seen = meta(0, getattr(kRootInode.value));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_GE(shared_.clock.now() - begin, mds::Options().session_lease);
}

INSTANTIATE_TEST_SUITE_P(Seeds, MdsLeaseTest, ::testing::Range<uint64_t>(0, 10));

}  // namespace
}  // namespace kdfs::sim::lone_mds
