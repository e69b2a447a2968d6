#include "kdfs/proto/cluster_map.h"
#include "kdfs/proto/member_state.h"
#include "mds/membership.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace kdfs::mds {
namespace {

TimePoint at(int64_t milliseconds) { return TimePoint(std::chrono::milliseconds(milliseconds)); }

pb::HeartbeatRequest beat(uint64_t node, uint64_t incarnation) {
    pb::HeartbeatRequest request;
    request.set_node(node);
    request.set_incarnation(incarnation);
    request.set_name("n" + std::to_string(node));
    request.set_address("10.0.0." + std::to_string(node) + ":1");
    request.set_cluster_id("c");
    request.add_targets()->set_target(node * 10);
    return request;
}

Membership::Options options(uint64_t nodes) {
    Membership::Options out;
    out.expected_nodes = nodes;
    return out;
}

pb::ClusterMap empty_map() {
    pb::ClusterMap map;
    map.set_epoch(1);
    map.set_cluster_id("c");
    map.set_session_floor(1);
    return map;
}

bool must(Result<bool> result) {
    EXPECT_TRUE(result.ok()) << result.error().to_string();
    return result.ok() && *result;
}

// Nodes 1 to 3 with one target each, in chains, on connections of the same number.
Membership three_nodes() {
    Membership m(options(3), empty_map(), at(0));
    for (uint64_t n = 1; n <= 3; ++n) {
        EXPECT_TRUE(must(m.heartbeat(beat(n, 1), n, at(0))));
    }
    return m;
}

// Node 1 starts anew, and the others report.
void restart_first(Membership& m, TimePoint now) {
    EXPECT_FALSE(must(m.heartbeat(beat(1, 2), 1, now)));
    EXPECT_FALSE(must(m.heartbeat(beat(2, 1), 2, now)));
    EXPECT_TRUE(must(m.heartbeat(beat(3, 1), 3, now)));
}

void expect_sound(const Membership& m) {
    EXPECT_TRUE(ClusterMap::make(m.map()).ok());
    for (const pb::Chain& c : m.map().chains()) {
        EXPECT_TRUE(chain_is_sound(c)) << c.ShortDebugString();
    }
}

uint64_t count_states(const Membership& m, uint64_t target, pb::MemberState state) {
    uint64_t count = 0;
    for (const pb::Chain& c : m.map().chains()) {
        count += member_state(c, TargetId(target)) == state ? 1 : 0;
    }
    return count;
}

TEST(MembershipTest, ChainsAreMadeOnceEnoughNodesAreHere) {
    Membership m(options(2), empty_map(), at(0));
    EXPECT_TRUE(must(m.heartbeat(beat(1, 1), 1, at(0))));
    EXPECT_EQ(m.map().chains_size(), 0);

    EXPECT_TRUE(must(m.heartbeat(beat(2, 1), 2, at(0))));

    EXPECT_GT(m.map().chains_size(), 64);
    EXPECT_EQ(m.map().tables_size(), 2);
    EXPECT_EQ(m.map().epoch(), 3U);
    expect_sound(m);
}

TEST(MembershipTest, ARepeatedHeartbeatChangesNothing) {
    Membership m = three_nodes();
    uint64_t epoch = m.map().epoch();

    EXPECT_FALSE(must(m.heartbeat(beat(1, 1), 1, at(100))));

    EXPECT_EQ(m.map().epoch(), epoch);
}

TEST(MembershipTest, ANodeIsDeadAfterItsLeaseAndEarlierIfItsConnectionIsGone) {
    Membership m = three_nodes();
    EXPECT_FALSE(m.tick(at(3999)));
    m.heartbeat(beat(1, 1), 1, at(3999)).ok();
    m.heartbeat(beat(2, 1), 2, at(3999)).ok();
    EXPECT_TRUE(m.tick(at(4000)));
    EXPECT_EQ(m.nodes_online(), 2U);
    EXPECT_EQ(count_states(m, 30, pb::MEMBER_SERVING), 0U);
    expect_sound(m);

    m.disconnected(2);
    m.heartbeat(beat(1, 1), 1, at(6000)).ok();
    EXPECT_FALSE(m.tick(at(3999 + 2249)));
    EXPECT_TRUE(m.tick(at(3999 + 2250)));
    EXPECT_EQ(m.nodes_online(), 1U);
}

TEST(MembershipTest, AnOldConnectionThatClosesDoesNotCount) {
    Membership m = three_nodes();
    EXPECT_FALSE(must(m.heartbeat(beat(1, 1), 77, at(10))));

    m.disconnected(1);

    EXPECT_EQ(m.next_tick(), at(4000));
}

TEST(MembershipTest, ARestartedDaemonMustSyncAgain) {
    Membership m = three_nodes();
    uint64_t served = count_states(m, 10, pb::MEMBER_SERVING);

    restart_first(m, at(50));

    EXPECT_EQ(count_states(m, 10, pb::MEMBER_OFFLINE), 0U);
    // Alone in a chain it goes on serving; else it syncs.
    EXPECT_EQ(count_states(m, 10, pb::MEMBER_SERVING) + count_states(m, 10, pb::MEMBER_SYNCING),
              served);
    EXPECT_GT(count_states(m, 10, pb::MEMBER_SYNCING), 64U);
    expect_sound(m);
}

uint64_t losses(const Membership& m) {
    uint64_t sum = 0;
    for (const pb::Chain& c : m.map().chains()) {
        sum += c.losses();
    }
    return sum;
}

TEST(MembershipTest, OnlyAMachineThatWasStartedAnewAndServedLastMayHaveLostSomething) {
    Membership m(options(2), empty_map(), at(0));
    auto comes = [&m](uint64_t node, uint64_t incarnation, uint64_t boot) {
        pb::HeartbeatRequest request = beat(node, incarnation);
        request.set_boot(boot);
        EXPECT_TRUE(must(m.heartbeat(request, node, at(0))));
    };
    comes(1, 1, 100);
    comes(2, 1, 200);
    // Others serve on.
    comes(1, 2, 101);
    EXPECT_EQ(losses(m), count_states(m, 10, pb::MEMBER_SERVING)) << "chains of one copy";
    uint64_t before = losses(m);
    // The last that served: only its daemon, then the machine.
    comes(2, 2, 200);
    EXPECT_EQ(losses(m), before);
    comes(2, 3, 201);
    EXPECT_GT(losses(m), before);
}

TEST(MembershipTest, ASyncedMemberServesAndOldReportsAreRefused) {
    Membership m = three_nodes();
    m.heartbeat(beat(1, 2), 9, at(50)).ok();
    for (const pb::Chain& c : m.map().chains()) {
        if (member_state(c, TargetId(10)) != pb::MEMBER_SYNCING) {
            continue;
        }
        pb::SyncDoneRequest done;
        done.set_chain(c.id());
        done.set_chain_version(c.version() - 1);
        done.set_target(10);
        EXPECT_EQ(m.sync_done(done).error().code, Errc::kStaleMap);
        done.set_chain_version(c.version());
        EXPECT_TRUE(must(m.sync_done(done)));
        EXPECT_FALSE(must(m.sync_done(done)));
        break;
    }
    expect_sound(m);
}

TEST(MembershipTest, DaemonsOfOtherClustersAndCopiedTargetsAreRefused) {
    Membership m = three_nodes();
    pb::HeartbeatRequest stranger = beat(4, 1);
    stranger.set_cluster_id("other");
    EXPECT_EQ(m.heartbeat(stranger, 4, at(0)).error().code, Errc::kWrongCluster);

    pb::HeartbeatRequest copied = beat(4, 1);
    copied.mutable_targets(0)->set_target(10);
    EXPECT_EQ(m.heartbeat(copied, 4, at(0)).error().code, Errc::kExists);

    pb::HeartbeatRequest emptied = beat(1, 2);
    emptied.clear_cluster_id();
    EXPECT_EQ(m.heartbeat(emptied, 4, at(0)).error().code, Errc::kWrongCluster);
}

TEST(MembershipTest, AFailedDiskIsOutUntilItsDaemonRestarts) {
    Membership m = three_nodes();
    pb::HeartbeatRequest failing = beat(1, 1);
    failing.mutable_targets(0)->set_failed(true);
    EXPECT_TRUE(must(m.heartbeat(failing, 1, at(10))));
    EXPECT_EQ(count_states(m, 10, pb::MEMBER_SERVING), 0U);

    EXPECT_FALSE(must(m.heartbeat(beat(1, 1), 1, at(20))));
    EXPECT_TRUE(must(m.heartbeat(beat(1, 2), 1, at(30))));

    EXPECT_GT(count_states(m, 10, pb::MEMBER_SYNCING), 0U);
    expect_sound(m);
}

TEST(MembershipTest, AMemberWithoutRoomLeavesOnlyChainsItIsSyncingInUntilItHasRoom) {
    Membership m = three_nodes();
    uint64_t memberships = count_states(m, 10, pb::MEMBER_SERVING);
    pb::HeartbeatRequest full = beat(1, 1);
    full.mutable_targets(0)->set_full(true);
    EXPECT_FALSE(must(m.heartbeat(full, 1, at(10))));
    EXPECT_EQ(count_states(m, 10, pb::MEMBER_SERVING), memberships);

    restart_first(m, at(20));
    uint64_t syncing = count_states(m, 10, pb::MEMBER_SYNCING);
    ASSERT_GT(syncing, 0U);
    full.set_incarnation(2);
    EXPECT_TRUE(must(m.heartbeat(full, 1, at(30))));
    EXPECT_EQ(count_states(m, 10, pb::MEMBER_SYNCING), 0U);
    EXPECT_EQ(count_states(m, 10, pb::MEMBER_OFFLINE), syncing);
    EXPECT_FALSE(must(m.heartbeat(full, 1, at(40))));

    EXPECT_TRUE(must(m.heartbeat(beat(1, 2), 1, at(50))));
    EXPECT_EQ(count_states(m, 10, pb::MEMBER_SYNCING), syncing);
    expect_sound(m);
}

TEST(MembershipTest, AMemberThatGetsRoomWhileNoManagerRunsComesBack) {
    Membership before = three_nodes();
    restart_first(before, at(20));
    uint64_t syncing = count_states(before, 10, pb::MEMBER_SYNCING);
    ASSERT_GT(syncing, 0U);
    pb::HeartbeatRequest full = beat(1, 2);
    full.mutable_targets(0)->set_full(true);
    EXPECT_TRUE(must(before.heartbeat(full, 1, at(30))));
    Membership m(options(3), before.map(), at(40));

    EXPECT_TRUE(must(m.heartbeat(beat(1, 2), 1, at(50))));

    EXPECT_EQ(count_states(m, 10, pb::MEMBER_SYNCING), syncing);
    expect_sound(m);
}

TEST(MembershipTest, FencedSessionsAreListedUntilTheFloorPassesThem) {
    Membership m = three_nodes();
    uint64_t epoch = m.map().epoch();
    EXPECT_TRUE(m.fence(SessionId(5), SessionId(3)));
    EXPECT_FALSE(m.fence(SessionId(5), SessionId(3)));
    EXPECT_EQ(m.map().epoch(), epoch + 1);
    EXPECT_TRUE((*ClusterMap::make(m.map()))->session_fenced(SessionId(5)));
    EXPECT_TRUE((*ClusterMap::make(m.map()))->session_fenced(SessionId(2)));
    EXPECT_FALSE((*ClusterMap::make(m.map()))->session_fenced(SessionId(4)));

    EXPECT_TRUE(m.fence(SessionId(6), SessionId(7)));

    EXPECT_EQ(m.map().fenced_sessions_size(), 0);
    EXPECT_TRUE((*ClusterMap::make(m.map()))->session_fenced(SessionId(6)));
}

TEST(MembershipTest, TheOldestEpochInUseFollowsHeartbeatsOfOnlineNodes) {
    Membership m = three_nodes();
    uint64_t epoch = m.map().epoch();
    for (uint64_t n = 1; n <= 2; ++n) {
        pb::HeartbeatRequest request = beat(n, 1);
        request.set_map_epoch(epoch);
        m.heartbeat(request, n, at(3000)).ok();
    }
    EXPECT_LT(m.oldest_epoch_in_use(), epoch);

    m.tick(at(4500));

    EXPECT_EQ(m.nodes_online(), 2U);
    EXPECT_EQ(m.oldest_epoch_in_use(), epoch);
}

TEST(MembershipTest, AfterARestartOfTheManagerEveryNodeHasAFullLease) {
    Membership first = three_nodes();

    Membership second(options(3), first.map(), at(100000));

    EXPECT_FALSE(second.tick(at(103999)));
    EXPECT_TRUE(second.tick(at(104000)));
    EXPECT_EQ(second.nodes_online(), 0U);
    for (const pb::Chain& c : second.map().chains()) {
        EXPECT_TRUE(chain_is_sound(c));
    }
}

uint64_t count_last_serving_together(const Membership& m, uint64_t a, uint64_t b) {
    uint64_t count = 0;
    for (const pb::Chain& c : m.map().chains()) {
        bool both = member_state(c, TargetId(a)) == pb::MEMBER_LAST_SERVING &&
                    member_state(c, TargetId(b)) == pb::MEMBER_LAST_SERVING;
        count += both ? 1 : 0;
    }
    return count;
}

bool a_chain_is_down(const Membership& m) {
    return std::any_of(m.map().chains().begin(), m.map().chains().end(), [](const pb::Chain& c) {
        return c.members_size() > 1 && serving_members(c).empty();
    });
}

TEST(MembershipTest, NodesThatFailTogetherGoDownTogetherAndTheFirstThatReturnsServes) {
    Membership m = three_nodes();
    m.heartbeat(beat(1, 1), 1, at(1000)).ok();
    m.heartbeat(beat(2, 1), 2, at(1600)).ok();
    m.disconnected(1);
    m.disconnected(2);
    m.heartbeat(beat(3, 1), 3, at(3000)).ok();
    EXPECT_FALSE(m.tick(at(1000 + 2250)));
    EXPECT_EQ(m.next_tick(), at(1000 + 2250 + 600));

    EXPECT_TRUE(m.tick(m.next_tick()));

    EXPECT_EQ(m.nodes_online(), 1U);
    EXPECT_GT(count_last_serving_together(m, 10, 20), 0U);
    EXPECT_TRUE(a_chain_is_down(m));
    expect_sound(m);
    EXPECT_TRUE(must(m.heartbeat(beat(2, 2), 4, at(9000))));
    EXPECT_FALSE(a_chain_is_down(m));
    expect_sound(m);
    EXPECT_TRUE(must(m.heartbeat(beat(1, 2), 5, at(9100))));
    EXPECT_EQ(count_states(m, 10, pb::MEMBER_SERVING) + count_states(m, 10, pb::MEMBER_SYNCING),
              count_states(m, 20, pb::MEMBER_SERVING) + count_states(m, 20, pb::MEMBER_SYNCING));
    expect_sound(m);
}

TEST(MembershipTest, ADeadNodeWaitsForDoubtfulOnesHalfALeaseAtMost) {
    Membership m = three_nodes();
    m.heartbeat(beat(2, 1), 2, at(1900)).ok();
    m.heartbeat(beat(3, 1), 3, at(3500)).ok();
    // Node 1 is dead at 4000, when node 2 is silent for more than half a lease; node 2 is dead at
    // 5900, when node 3 is.
    EXPECT_FALSE(m.tick(at(4000)));
    EXPECT_EQ(m.next_tick(), at(5900));
    EXPECT_FALSE(m.tick(at(5900)));
    EXPECT_EQ(m.next_tick(), at(6000));

    EXPECT_TRUE(m.tick(at(6000)));

    EXPECT_EQ(m.nodes_online(), 1U);
    EXPECT_GT(count_last_serving_together(m, 10, 20), 0U);
    EXPECT_EQ(m.next_tick(), at(7500));
}

TEST(MembershipTest, WhoseConnectionIsFoundBrokenLateWaitsToo) {
    Membership m = three_nodes();
    m.heartbeat(beat(3, 1), 3, at(3500)).ok();
    m.disconnected(1);

    EXPECT_FALSE(m.tick(at(3600)));
    EXPECT_EQ(m.next_tick(), at(4000));
    EXPECT_TRUE(m.tick(at(4000)));

    EXPECT_GT(count_last_serving_together(m, 10, 20), 0U);
}

TEST(MembershipTest, ADoubtfulNodeThatReportsIsNotWaitedForAnyMore) {
    Membership m = three_nodes();
    m.heartbeat(beat(2, 1), 2, at(1900)).ok();
    m.heartbeat(beat(3, 1), 3, at(3500)).ok();
    EXPECT_FALSE(m.tick(at(4000)));

    m.heartbeat(beat(2, 1), 2, at(4200)).ok();

    EXPECT_TRUE(m.tick(at(4200)));
    EXPECT_EQ(m.nodes_online(), 2U);
}

TEST(MembershipTest, WhoStartedAnewAfterTheManagerDidWaitsForThoseNotHeardOf) {
    Membership first = three_nodes();
    Membership m(options(3), first.map(), at(100000));
    uint64_t epoch = m.map().epoch();
    EXPECT_FALSE(must(m.heartbeat(beat(1, 2), 1, at(100100))));
    EXPECT_FALSE(must(m.heartbeat(beat(3, 2), 3, at(100100))));
    EXPECT_EQ(m.map().epoch(), epoch);
    EXPECT_FALSE(must(m.heartbeat(beat(1, 2), 1, at(103900))));
    EXPECT_FALSE(must(m.heartbeat(beat(3, 2), 3, at(103900))));

    EXPECT_TRUE(m.tick(at(104000)));

    EXPECT_EQ(m.nodes_online(), 2U);
    EXPECT_FALSE(a_chain_is_down(m));
    expect_sound(m);
    for (const pb::Node& n : m.map().nodes()) {
        EXPECT_EQ(n.incarnation(), n.id() == 2 ? 1U : 2U);
    }
}

TEST(MembershipTest, WhoStartedAnewSyncsWhenTheOthersReport) {
    Membership first = three_nodes();
    Membership m(options(3), first.map(), at(100000));
    EXPECT_FALSE(must(m.heartbeat(beat(1, 2), 1, at(100100))));
    EXPECT_FALSE(must(m.heartbeat(beat(2, 1), 2, at(100200))));

    EXPECT_TRUE(must(m.heartbeat(beat(3, 1), 3, at(100300))));

    EXPECT_GT(count_states(m, 10, pb::MEMBER_SYNCING), 0U);
    EXPECT_EQ(count_states(m, 20, pb::MEMBER_SYNCING), 0U);
    for (const pb::Chain& c : m.map().chains()) {
        EXPECT_EQ(c.losses() != 0,
                  c.members_size() == 1 && member_state(c, TargetId(10)) != pb::MEMBER_NONE);
    }
    expect_sound(m);
}

TEST(MembershipTest, OfThoseThatStartedAnewTogetherTheOneThatLostNothingServesFirst) {
    Membership m(options(2), empty_map(), at(0));
    auto booted = [](uint64_t node, uint64_t incarnation, uint64_t boot) {
        pb::HeartbeatRequest request = beat(node, incarnation);
        request.set_boot(boot);
        return request;
    };
    m.heartbeat(booted(1, 1, 5), 1, at(0)).ok();
    m.heartbeat(booted(2, 1, 6), 2, at(0)).ok();
    m.disconnected(1);
    m.disconnected(2);
    // Node 1's machine was started anew, of node 2 only the daemon.
    EXPECT_FALSE(must(m.heartbeat(booted(1, 2, 7), 3, at(500))));

    EXPECT_TRUE(must(m.heartbeat(booted(2, 2, 6), 4, at(600))));

    for (const pb::Chain& c : m.map().chains()) {
        if (c.members_size() == 2) {
            EXPECT_EQ(member_state(c, TargetId(20)), pb::MEMBER_SERVING);
            EXPECT_EQ(member_state(c, TargetId(10)), pb::MEMBER_SYNCING);
            EXPECT_EQ(c.losses(), 0U);
        }
    }
}

// One node with `targets` targets from number `first` on.
pb::HeartbeatRequest large_beat(uint64_t node, uint64_t first, int targets) {
    pb::HeartbeatRequest request = beat(node, 1);
    request.clear_targets();
    for (int i = 0; i < targets; ++i) {
        request.add_targets()->set_target(first + static_cast<uint64_t>(i));
    }
    return request;
}

// Chains are made for a part of the largest cluster, since that takes time by its square; the map
// grows by the number of targets, and a little by their numbers, which are long here.
TEST(MembershipTest, TheLargestMapWithItsChainsFitsIntoAFrame) {
    Membership m(options(4), empty_map(), at(0));
    constexpr int kPart = 8;
    constexpr int kEach = Membership::kTargetsMax / 4 / kPart;
    for (uint64_t n = 1; n <= 4; ++n) {
        EXPECT_TRUE(must(m.heartbeat(large_beat(n, n << 20, kEach), n, at(0))));
    }
    EXPECT_GT(m.map().chains_size(), 0);
    EXPECT_LT(m.map().ByteSizeLong() * kPart, Membership::kMapBytesMax);
    expect_sound(m);
}

TEST(MembershipTest, TargetsBeyondTheBoundAreRefused) {
    Membership m(options(1000), empty_map(), at(0));
    constexpr int kEach = Membership::kTargetsMax / 4;
    for (uint64_t n = 1; n <= 4; ++n) {
        EXPECT_TRUE(must(m.heartbeat(large_beat(n, n * 10000, kEach), n, at(0))));
    }
    auto refused = m.heartbeat(beat(5, 1), 5, at(0));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, Errc::kOverloaded);
    EXPECT_EQ(m.map().nodes_size(), 4);
    // Who is in already may go on.
    EXPECT_TRUE(m.heartbeat(large_beat(4, 40000, kEach), 4, at(1)).ok());
}

TEST(MembershipTest, NoNamesMakeTheMapTooLarge) {
    Membership m(options(1000), empty_map(), at(0));
    std::string name(Membership::kNameBytesMax, 'x');
    int let_in = 0;
    for (uint64_t n = 1; n <= Membership::kNodesMax + 1; ++n) {
        pb::HeartbeatRequest request = beat(n, 1);
        request.clear_targets();
        request.set_name(name);
        request.set_address(name);
        request.set_unix_address(name);
        request.set_failure_domain(name);
        let_in += m.heartbeat(request, n, at(0)).ok() ? 1 : 0;
    }
    EXPECT_EQ(let_in, Membership::kNodesMax);
    EXPECT_LT(m.map().ByteSizeLong(), Membership::kMapBytesMax);
    pb::HeartbeatRequest request = beat(1, 1);
    request.set_name(name + "x");
    EXPECT_FALSE(m.heartbeat(request, 1, at(0)).ok());
}

TEST(MembershipTest, WhyADiskFailedIsKeptAsShortText) {
    Membership m = three_nodes();
    pb::HeartbeatRequest request = beat(1, 1);
    request.mutable_targets(0)->set_failed(true);
    request.mutable_targets(0)->set_failure(std::string(100000, 'x'));
    EXPECT_TRUE(must(m.heartbeat(request, 1, at(10))));
    EXPECT_EQ(m.reports().at(10).failure().size(), Membership::kNameBytesMax);
}

pb::ScrubRequest scrub_request(bool run, uint64_t rate) {
    pb::ScrubRequest request;
    request.set_run(run);
    request.set_bytes_per_second(rate);
    return request;
}

TEST(MembershipTest, AScrubIsOrderedChangedAndStopped) {
    Membership m = three_nodes();
    EXPECT_FALSE(must(m.scrub(scrub_request(false, 0))));
    EXPECT_TRUE(must(m.scrub(scrub_request(true, MiB))));
    EXPECT_EQ(m.map().scrub().number(), 1U);
    EXPECT_TRUE(m.map().scrub().running());
    EXPECT_FALSE(must(m.scrub(scrub_request(true, MiB))));
    // Another rate is no new scrub.
    EXPECT_TRUE(must(m.scrub(scrub_request(true, 2 * MiB))));
    EXPECT_EQ(m.map().scrub().number(), 1U);
    EXPECT_EQ(m.map().scrub().bytes_per_second(), 2 * MiB);
    EXPECT_TRUE(must(m.scrub(scrub_request(false, 0))));
    EXPECT_FALSE(m.map().scrub().running());
    EXPECT_TRUE(must(m.scrub(scrub_request(true, MiB))));
    EXPECT_EQ(m.map().scrub().number(), 2U);
    for (uint64_t rate : {uint64_t{0}, uint64_t{1}, UINT64_MAX}) {
        EXPECT_EQ(m.scrub(scrub_request(true, rate)).error().code, Errc::kInvalidArgument);
    }
    expect_sound(m);
}

TEST(MembershipTest, AScrubThatAllHaveFinishedIsFollowedByANewOne) {
    Membership m = three_nodes();
    EXPECT_TRUE(must(m.scrub(scrub_request(true, MiB))));
    for (uint64_t n = 1; n <= 3; ++n) {
        EXPECT_FALSE(must(m.scrub(scrub_request(true, MiB))));
        pb::HeartbeatRequest request = beat(n, 1);
        request.mutable_targets(0)->mutable_scrub()->set_number(1);
        request.mutable_targets(0)->mutable_scrub()->set_finished(true);
        EXPECT_FALSE(must(m.heartbeat(request, n, at(10))));
    }
    EXPECT_TRUE(must(m.scrub(scrub_request(true, MiB))));
    EXPECT_EQ(m.map().scrub().number(), 2U);
}

}  // namespace
}  // namespace kdfs::mds
