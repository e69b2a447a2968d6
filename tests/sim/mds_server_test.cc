#include "tests/sim/mds_server_fixture.h"

namespace kdfs::sim::lone_mds {
namespace {

TEST_P(MdsServerTest, AFileIsCreatedWithALeaseAndTheSecondClientSeesWhatTheFirstKept) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    EXPECT_EQ(made->grant().mode(), pb::LEASE_EXCLUSIVE);
    EXPECT_EQ(made->parent_grant().mode(), pb::LEASE_READ);
    client(0).set_dirty_size(made->attr().ino(), 4711);

    auto seen = meta(1, getattr(made->attr().ino()));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 4711U);
    EXPECT_GE(client(0).recalls(), 1U);
    // The first still has it open for writing: nobody may cache it.
    EXPECT_EQ(seen->grant().mode(), pb::LEASE_NONE);
}

TEST_P(MdsServerTest, TheSameRequestIsAnsweredTwiceAndDoneOnce) {
    open(0);
    pb::MetaRequest request = create(0, "f");
    request.mutable_create()->set_exclusive(true);
    auto first = meta(0, request);

    auto second = meta(0, request);

    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_EQ(first->attr().ino(), second->attr().ino());
    request.set_seq(client(0).next_seq());
    EXPECT_EQ(meta(0, request).error().code, Errc::kExists);
}

TEST_P(MdsServerTest, AClientThatIsGoneIsFencedAndItsSizesAreFoundInTheChunks) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    lengths_[made->attr().data()] = 12345;
    clients_[0]->cut_power();

    auto seen = meta(1, getattr(made->attr().ino()));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 12345U);
    EXPECT_EQ(seen->grant().mode(), pb::LEASE_READ);
}

TEST_P(MdsServerTest, NobodyWaitsForTheAnswerToARecallLongerThanForTheSession) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    client(0).freeze();
    TimePoint begin = shared_.clock.now();

    auto seen = meta(1, getattr(made->attr().ino()));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(client(0).recalls(), 1U);
    EXPECT_LT(shared_.clock.now() - begin, std::chrono::seconds(15));
}

TEST_P(MdsServerTest, ASilentSessionKeepsItsPlaceOnceWhatOthersWantedIsGivenBack) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    auto seen = meta(1, getattr(made->attr().ino()));
    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    ASSERT_GE(client(0).recalls(), 1U);
    clients_[0]->cut_power();

    pass(std::chrono::seconds(30));

    auto count = run_on(*clients_[1], client(1).count_sessions());
    ASSERT_TRUE(count && count->ok()) << (count ? count->error().to_string() : "no answer");
    EXPECT_EQ(**count, 2);
    pass(std::chrono::seconds(60));
    count = run_on(*clients_[1], client(1).count_sessions());
    ASSERT_TRUE(count && count->ok()) << (count ? count->error().to_string() : "no answer");
    EXPECT_EQ(**count, 1);
}

TEST_P(MdsServerTest, ARestartedServerLetsNobodyInBeforeTheHoldersAreBack) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    uint64_t ino = made->attr().ino();
    client(0).set_dirty_size(ino, 99);
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    EXPECT_EQ(meta(1, getattr(ino)).error().code, Errc::kBusy);
    open(1);
    auto early = run_on(*clients_[1], client(1).meta(getattr(ino)), std::chrono::seconds(2));
    EXPECT_FALSE(early.has_value());

    open(0);
    auto seen = meta(1, getattr(ino));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 99U);
}

TEST_P(MdsServerTest, ASizeWhoseReturnGotLostIsTakenAtTheResumptionUnlessItWasSetSince) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    uint64_t ino = made->attr().ino();
    client(0).give_back(ino, 99);
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(1);
    open(0);
    auto seen = meta(1, getattr(ino));
    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 99U);
    EXPECT_EQ(client(0).recalls(), 0U);
    pb::MetaRequest cut;
    cut.set_seq(client(1).next_seq());
    cut.mutable_setattr()->set_ino(ino);
    cut.mutable_setattr()->set_size(10);
    ASSERT_TRUE(meta(1, cut).ok());
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(0);
    open(1);

    seen = meta(0, getattr(ino));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 10U);
}

TEST_P(MdsServerTest, ARestartedServerWaitsNoLongerThanTheLeaseForWhoDoesNotComeBack) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    clients_[0]->cut_power();
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(1);

    auto seen = meta(1, getattr(made->attr().ino()));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
}

TEST_P(MdsServerTest, ARestartedServerDoesNotWaitForAClientThatIsKnownToBeDead) {
    client(0).set_name("dead");
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    clients_[0]->cut_power();
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(1);

    auto other = run_on(*clients_[1], client(1).end_sessions("somebody else"));
    ASSERT_TRUE(other && other->ok()) << (other ? other->error().to_string() : "no answer");
    EXPECT_EQ(**other, 0U);
    auto ended = run_on(*clients_[1], client(1).end_sessions("dead"));
    ASSERT_TRUE(ended && ended->ok()) << (ended ? ended->error().to_string() : "no answer");
    EXPECT_EQ(**ended, 1U);
    auto seen =
        run_on(*clients_[1], client(1).meta(getattr(made->attr().ino())), std::chrono::seconds(2));

    ASSERT_TRUE(seen.has_value()) << "it waited for the lease";
    EXPECT_TRUE(seen->ok()) << seen->error().to_string();
}

TEST_P(MdsServerTest, ATruncationIsAnsweredAfterTheChunksAreCut) {
    open(0);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    pb::MetaRequest flush;
    flush.set_seq(client(0).next_seq());
    flush.mutable_flush()->set_ino(made->attr().ino());
    flush.mutable_flush()->set_size(3 * MiB);
    ASSERT_TRUE(meta(0, flush).ok());
    pb::MetaRequest cut;
    cut.set_seq(client(0).next_seq());
    cut.mutable_setattr()->set_ino(made->attr().ino());
    cut.mutable_setattr()->set_size(100);

    auto done = meta(0, cut);

    ASSERT_TRUE(done.ok()) << done.error().to_string();
    EXPECT_EQ(done->attr().size(), 100U);
    EXPECT_EQ(storage(0).truncated() + storage(1).truncated(), 1U);
    EXPECT_GE(storage(0).removed() + storage(1).removed(), kWidthDefault);
}

TEST_P(MdsServerTest, TheSizeOfAFileThatIsBeingCutIsLookedForWhenItIsCut) {
    client(0).set_name("gone");
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    uint64_t ino = made->attr().ino();
    pb::MetaRequest flush;
    flush.set_seq(client(0).next_seq());
    flush.mutable_flush()->set_ino(ino);
    flush.mutable_flush()->set_size(12345);
    ASSERT_TRUE(meta(0, flush).ok());
    lengths_[made->attr().data()] = 12345;
    storage(0).keep_chunks(true);
    storage(1).keep_chunks(true);
    pb::MetaRequest cut;
    cut.set_seq(client(0).next_seq());
    cut.mutable_setattr()->set_ino(ino);
    cut.mutable_setattr()->set_size(100);
    auto early = run_on(*clients_[0], client(0).meta(cut), std::chrono::seconds(2));
    ASSERT_FALSE(early.has_value());
    clients_[0]->cut_power();
    auto ended = run_on(*clients_[1], client(1).end_sessions("gone"));
    ASSERT_TRUE(ended && ended->ok());
    pass(std::chrono::seconds(5));

    lengths_[made->attr().data()] = 100;
    storage(0).keep_chunks(false);
    storage(1).keep_chunks(false);
    auto seen = meta(1, getattr(ino));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 100U);
}

TEST_P(MdsServerTest, AnUnlinkedFileLivesWhileItIsOpenAndIsCollectedAfterwards) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    uint64_t ino = made->attr().ino();
    pb::MetaRequest flush;
    flush.set_seq(client(0).next_seq());
    flush.mutable_flush()->set_ino(ino);
    flush.mutable_flush()->set_size(3 * MiB);
    ASSERT_TRUE(meta(0, flush).ok());
    pb::MetaRequest remove;
    remove.set_seq(client(1).next_seq());
    remove.mutable_remove()->set_parent(kRootInode.value);
    remove.mutable_remove()->set_name("f");
    auto removed = meta(1, remove);
    ASSERT_TRUE(removed.ok()) << removed.error().to_string();
    EXPECT_TRUE(removed->orphaned());
    EXPECT_TRUE(meta(0, getattr(ino)).ok());
    EXPECT_EQ(storage(0).removed() + storage(1).removed(), 0U);

    for (size_t n : {0U, 1U}) {
        pb::MetaRequest release;
        pb::ReleaseOne* item = release.mutable_release()->add_items();
        item->set_ino(ino);
        item->set_lease_seq(~uint64_t{0});
        ASSERT_TRUE(meta(n, release).ok());
    }
    pass(std::chrono::seconds(2));

    EXPECT_EQ(meta(0, getattr(ino)).error().code, Errc::kStaleHandle);
    EXPECT_GE(storage(0).removed() + storage(1).removed(), 1U);
}

TEST_P(MdsServerTest, NothingIsCollectedOfAFileWhoseMakerNeverWroteIt) {
    open(0);
    open(1);
    auto untouched = meta(0, create(0, "untouched"));
    ASSERT_TRUE(untouched.ok());
    EXPECT_TRUE(untouched->created());
    ASSERT_TRUE(meta(0, remove_unwritten(0, "untouched", *untouched)).ok());
    pass(std::chrono::seconds(3));
    EXPECT_EQ(storage(0).removed() + storage(1).removed(), 0U);

    // The same words about a lease that was asked back count for nothing.
    auto shared = meta(0, create(0, "shared"));
    ASSERT_TRUE(shared.ok());
    client(0).set_dirty_size(shared->attr().ino(), 3 * MiB);
    ASSERT_TRUE(meta(1, getattr(shared->attr().ino())).ok());
    ASSERT_TRUE(meta(0, remove_unwritten(0, "shared", *shared)).ok());
    pass(std::chrono::seconds(3));
    uint64_t removed = storage(0).removed() + storage(1).removed();
    EXPECT_GE(removed, 1U);

    // Nor do those about an older grant than the one that stands.
    auto again = meta(0, create(0, "again"));
    ASSERT_TRUE(again.ok());
    ASSERT_TRUE(meta(0, getattr(again->attr().ino())).ok());
    ASSERT_TRUE(meta(0, remove_unwritten(0, "again", *again)).ok());
    pass(std::chrono::seconds(3));
    EXPECT_GT(storage(0).removed() + storage(1).removed(), removed);
}

TEST_P(MdsServerTest, WhatACrashLeavesToCollectIsCollectedInTheNextLife) {
    open(0);
    constexpr int kFiles = 100;  // more than one batch
    for (int i = 0; i < kFiles; ++i) {
        std::string name = "f" + std::to_string(i);
        auto made = meta(0, create(0, name));
        ASSERT_TRUE(made.ok());
        pb::MetaRequest remove = remove_unwritten(0, name, *made);
        remove.mutable_remove()->clear_unwritten_lease_seq();
        ASSERT_TRUE(meta(0, remove).ok());
    }
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(20));
    EXPECT_GE(storage(0).removed() + storage(1).removed(), uint64_t{kFiles});
}

TEST_P(MdsServerTest, WhatWasSyncedSurvivesAPowerCut) {
    open(0);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    pb::MetaRequest sync;
    sync.mutable_sync();
    ASSERT_TRUE(meta(0, sync).ok());
    uint64_t epoch = storage(0).epoch();
    mds_->cut_power();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(0);

    auto again = meta(0, getattr(made->attr().ino()));

    ASSERT_TRUE(again.ok()) << again.error().to_string();
    EXPECT_GE(storage(0).epoch(), epoch);
}

TEST_P(MdsServerTest, MembersThatComeIntoSyncTogetherArePublishedTogether) {
    storage_[1]->kill();
    storage_[1]->boot();
    pass(std::chrono::seconds(10));
    uint64_t syncing = storage(0).syncing();
    ASSERT_GE(syncing, 20U);
    uint64_t before = storage(0).maps_pushed();

    storage(0).report_synced();
    pass(std::chrono::seconds(4));

    EXPECT_EQ(storage(0).syncing(), 0U);
    EXPECT_LE(storage(0).maps_pushed() - before, 5U);
}

TEST_P(MdsServerTest, CreationsOfManyNamesRaceAndAllSucceed) {
    open(0);
    open(1);
    for (int i = 0; i < 20; ++i) {
        for (size_t n : {0U, 1U}) {
            auto made = meta(n, create(n, std::to_string(n) + "." + std::to_string(i)));
            ASSERT_TRUE(made.ok()) << made.error().to_string();
        }
    }
    pb::MetaRequest list;
    list.mutable_readdir()->set_ino(kRootInode.value);
    list.mutable_readdir()->set_entries_max(100);
    list.mutable_readdir()->set_attrs(true);

    auto names = meta(0, list);

    ASSERT_TRUE(names.ok());
    EXPECT_EQ(names->entries_size(), 40);
    // Also of the files that the other client had to itself.
    int with_attr = 0;
    for (const pb::DirEntry& e : names->entries()) {
        with_attr += e.has_attr() ? 1 : 0;
    }
    EXPECT_EQ(with_attr, 40);
}

TEST_P(MdsServerTest, AChangeThatWaitsEndsWithItsConnection) {
    open(0);
    open(1);
    ASSERT_TRUE(meta(0, create(0, "f")).ok());
    // What the other keeps of the directory is in the way, and it is silent.
    pb::MetaRequest list;
    list.mutable_readdir()->set_ino(kRootInode.value);
    list.mutable_readdir()->set_want_parent(pb::LEASE_READ);
    ASSERT_TRUE(meta(1, list).ok());
    clients_[1]->cut_power();
    pb::MetaRequest rename;
    rename.set_seq(client(0).next_seq());
    rename.mutable_rename()->set_parent(kRootInode.value);
    rename.mutable_rename()->set_name("f");
    rename.mutable_rename()->set_new_parent(kRootInode.value);
    rename.mutable_rename()->set_new_name("g");
    auto under_way =
        run_on(*clients_[0], client(0).meta(std::move(rename)), std::chrono::seconds(1));
    ASSERT_FALSE(under_way);

    clients_[0]->kill();
    pass(std::chrono::minutes(5));

    clients_[0]->boot();
    open(0);
    pb::MetaRequest lookup;
    lookup.mutable_lookup()->set_parent(kRootInode.value);
    lookup.mutable_lookup()->set_name("f");
    EXPECT_TRUE(meta(0, lookup).ok());
}

TEST_P(MdsServerTest, LeaseModesThatAreNotKnownAreRefused) {
    open(0);
    auto unknown = static_cast<pb::LeaseMode>(4711);
    std::vector<pb::MetaRequest> requests(3, getattr(kRootInode.value));
    requests[0].mutable_getattr()->set_want(unknown);
    requests[1].mutable_readdir()->set_ino(kRootInode.value);
    requests[1].mutable_readdir()->set_want_parent(unknown);
    pb::ReleaseOne* item = requests[2].mutable_release()->add_items();
    item->set_ino(kRootInode.value);
    item->set_keep(unknown);

    for (const pb::MetaRequest& request : requests) {
        auto reply = meta(0, request);
        ASSERT_FALSE(reply.ok()) << request.ShortDebugString();
        EXPECT_EQ(reply.error().code, Errc::kInvalidArgument);
    }
    EXPECT_TRUE(meta(0, getattr(kRootInode.value)).ok());
}

INSTANTIATE_TEST_SUITE_P(Seeds, MdsServerTest, ::testing::Range<uint64_t>(0, 10));

}  // namespace
}  // namespace kdfs::sim::lone_mds
