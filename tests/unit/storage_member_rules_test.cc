// Rules of docs/protocol.md about the order of events on one member of a chain.

#include "tests/unit/storage_member_world.h"

#include <gtest/gtest.h>

namespace kdfs::storage {
namespace {

constexpr pb::MemberState kServing = pb::MEMBER_SERVING;
constexpr pb::MemberState kSyncing = pb::MEMBER_SYNCING;
constexpr pb::MemberState kOffline = pb::MEMBER_OFFLINE;

const MemberWorld::Members kHead = {{1, kServing}, {2, kServing}};
const MemberWorld::Members kTail = {{2, kServing}, {1, kServing}};
const MemberWorld::Members kAlone = {{1, kServing}, {2, kOffline}};
const MemberWorld::Members kBringing = {{1, kServing}, {2, kSyncing}};
const MemberWorld::Members kGone = {{2, kServing}, {1, kOffline}};

// No error.
constexpr std::optional<Errc> kDone;

using MaybeText = std::optional<std::string>;

TEST(MemberRulesTest, ASessionThatIsShutOutWhileItsWriteWaitsForTheLockDoesNotWriteNorRead) {
    MemberWorld world(kHead);
    auto first = world.write(7, 1, "first");
    auto sent = world.next(MessageType::kWrite);
    ASSERT_TRUE(sent) << (*first ? (*first)->error().to_string() : "");
    auto waiting = world.write(8, 1, "second");
    world.run_for(std::chrono::milliseconds(10));

    world.fence(8);
    sent->reply(pb::WriteReply());

    EXPECT_EQ(world.code_of(first), kDone);
    EXPECT_EQ(world.code_of(waiting), Errc::kFenced);
    EXPECT_EQ(world.code_of(world.read(8)), Errc::kFenced);
    EXPECT_EQ(world.code_of(world.read(7)), kDone);
    EXPECT_EQ(world.stored(), MaybeText("first"));
}

// The successor, or that there is none, was settled before; only the disk is not done.
TEST(MemberRulesTest, AMemberThatLostItsPlaceBeforeTheCommitDoesNotCommit) {
    MemberWorld world(kAlone);
    auto written = world.write(7, 1, "text");
    ASSERT_TRUE(world.run_until_staged());
    world.settle();
    ASSERT_FALSE(written->has_value());

    world.change_chain(kGone);

    EXPECT_EQ(world.code_of(written), Errc::kStaleMap);
    EXPECT_EQ(world.stored(), std::nullopt);
}

TEST(MemberRulesTest, AMemberThatWasAwayDropsWhatWasUnderWayAlsoIfItIsBackInItsPlace) {
    MemberWorld world(kHead);
    auto written = world.write(7, 1, "text");
    auto sent = world.next(MessageType::kWrite);
    ASSERT_TRUE(sent);

    world.change_chain(kGone);
    world.change_chain(kTail);
    sent->reply(pb::WriteReply());

    EXPECT_EQ(world.code_of(written), Errc::kStaleMap);
    EXPECT_EQ(world.stored(), std::nullopt);
}

TEST(MemberRulesTest, AnAcknowledgementOfBeforeTheChainChangedDoesNotCount) {
    MemberWorld world(kHead);
    auto written = world.write(7, 1, "text");
    auto sent = world.next(MessageType::kWrite);
    ASSERT_TRUE(sent);

    world.change_chain(kBringing);
    sent->reply(pb::WriteReply());

    auto again = world.next(MessageType::kWrite);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->write().chain_version(), sent->write().chain_version() + 1);
    EXPECT_EQ(world.stored(), std::nullopt);
    again->reply(pb::WriteReply());
    EXPECT_EQ(world.code_of(written), kDone);
    EXPECT_EQ(world.stored(), MaybeText("text"));
}

TEST(MemberRulesTest, ADaemonActsOnlyWhileTheMapShowsItsOwnIncarnation) {
    MemberWorld world(kAlone);
    world.write_whole(7, 1, "text");

    world.replace_daemon();

    EXPECT_EQ(world.code_of(world.read(7)), Errc::kNotServing);
    EXPECT_EQ(world.code_of(world.write(7, 2, "more")), Errc::kNotServing);
    EXPECT_EQ(world.stored(), MaybeText("text"));
}

TEST(MemberRulesTest, AMemberIsNotReportedInSyncBeforeItsDiskIsSynced) {
    MemberWorld world(kBringing);
    world.start_resync();
    auto list = world.next(MessageType::kListChunks);
    ASSERT_TRUE(list);
    list->reply(pb::ListChunksReply());
    auto sync = world.next(MessageType::kSync);
    ASSERT_TRUE(sync);
    sync->refuse(Errc::kNotServing);

    auto again = world.next();
    ASSERT_TRUE(again);
    ASSERT_EQ(again->type, MessageType::kSync);
    again->reply(pb::SyncReply());

    EXPECT_TRUE(world.next(MessageType::kSyncDone));
}

TEST(MemberRulesTest, AReadWaitsForTheChangeThatIsNotDecided) {
    MemberWorld world(kHead);
    world.write_whole(7, 1, "old");
    auto written = world.write(7, 2, "new");
    auto sent = world.next(MessageType::kWrite);
    ASSERT_TRUE(sent);

    auto read = world.read(8);
    world.run_for(std::chrono::seconds(1));
    EXPECT_FALSE(read->has_value());
    sent->reply(pb::WriteReply());

    EXPECT_EQ(world.code_of(written), kDone);
    ASSERT_EQ(world.code_of(read), kDone);
    EXPECT_EQ((*read)->value().payload.flatten().view(), "new");
}

TEST(MemberRulesTest, AForwardedWriteThatComesAgainDoesNotBringARemovedChunkBack) {
    MemberWorld world(kTail);
    pb::WriteRequest message = world.write_of(7, 1, "text");
    message.set_forwarded(true);
    message.set_target(1);
    message.set_new_version(100);
    pb::WriteRequest removal = world.write_of(7, 2, "");
    removal.set_kind(pb::WRITE_REMOVE);
    removal.set_forwarded(true);
    removal.set_target(1);
    removal.set_base_version(100);
    removal.set_new_version(101);
    ASSERT_EQ(world.code_of(world.write(message, "text")), kDone);
    ASSERT_EQ(world.code_of(world.write(removal, "")), kDone);

    EXPECT_EQ(world.code_of(world.write(message, "text")), Errc::kStaleVersion);
    EXPECT_EQ(world.stored(), std::nullopt);
}

TEST(MemberRulesTest, AReplacementCarriesTheWritersOfTheChunk) {
    MemberWorld world(kHead);
    world.write_whole(7, 1, "old");
    auto written = world.write(8, 1, "new");
    auto sent = world.next(MessageType::kWrite);
    ASSERT_TRUE(sent);
    sent->refuse(Errc::kStaleVersion);
    auto list = world.next(MessageType::kListChunks);
    ASSERT_TRUE(list);
    list->reply(pb::ListChunksReply());

    auto whole = world.next(MessageType::kWrite);

    ASSERT_TRUE(whole);
    ASSERT_EQ(whole->write().kind(), pb::WRITE_REPLACE);
    ASSERT_EQ(whole->write().recent_size(), 1);
    EXPECT_EQ(whole->write().recent(0).session(), 7U);
    EXPECT_EQ(whole->write().recent(0).write_id(), 1U);
    EXPECT_EQ(whole->write().recent(0).version(), whole->write().new_version());
}

TEST(MemberRulesTest, AChunkWithAChangeUnderWayOnEitherSideCountsAsDifferent) {
    MemberWorld world(kHead);
    world.write_whole(7, 1, "text");
    ChunkStore::Listed listed = world.listed();
    pb::ChunkEntry theirs;
    set_key(*theirs.mutable_chunk(), listed.chunk);
    theirs.set_version(listed.version.value);
    theirs.set_length(listed.length);
    theirs.set_digest(listed.digest);
    auto differing = [&] {
        auto plan = world.compare(theirs);
        return plan ? plan->differ.size() : 99;
    };

    EXPECT_EQ(differing(), 0U);
    theirs.set_pending(true);
    EXPECT_EQ(differing(), 1U);
    theirs.set_pending(false);
    auto written = world.write(7, 2, "more");
    ASSERT_TRUE(world.next(MessageType::kWrite));
    EXPECT_EQ(differing(), 1U);
}

TEST(MemberRulesTest, AChangeThatWasSentIsSentAgainUntilTheSuccessorAnswers) {
    MemberWorld world(kHead);
    auto written = world.write(7, 1, "text");
    for (Errc code : {Errc::kTimeout, Errc::kUnreachable, Errc::kNotServing, Errc::kStaleMap}) {
        auto sent = world.next(MessageType::kWrite);
        ASSERT_TRUE(sent);
        EXPECT_FALSE(written->has_value());
        sent->refuse(code);
    }
    auto sent = world.next(MessageType::kWrite);
    ASSERT_TRUE(sent);
    sent->reply(pb::WriteReply());

    EXPECT_EQ(world.code_of(written), kDone);
    EXPECT_EQ(world.stored(), MaybeText("text"));
}

TEST(MemberRulesTest, ADaemonActsByAFenceOnlyOnceChangesOfTheSessionAreDecided) {
    MemberWorld world(kHead);
    Epoch before = world.replicator().acted_epoch();
    auto written = world.write(7, 1, "text");
    auto sent = world.next(MessageType::kWrite);
    ASSERT_TRUE(sent);

    world.fence(7);

    EXPECT_EQ(world.replicator().acted_epoch().value, before.value);
    sent->reply(pb::WriteReply());
    EXPECT_EQ(world.code_of(written), kDone);
    EXPECT_EQ(world.replicator().acted_epoch().value, before.value + 1);
}

}  // namespace
}  // namespace kdfs::storage
