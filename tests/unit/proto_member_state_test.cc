#include "kdfs/proto/cluster_map.h"
#include "kdfs/proto/member_state.h"

#include <gtest/gtest.h>

#include <deque>
#include <set>
#include <string>
#include <vector>

namespace kdfs {
namespace {

constexpr pb::MemberState kStates[] = {pb::MEMBER_SERVING,
                                       pb::MEMBER_SYNCING,
                                       pb::MEMBER_WAITING,
                                       pb::MEMBER_LAST_SERVING,
                                       pb::MEMBER_OFFLINE};
constexpr MemberEvent kEvents[] = {MemberEvent::kTargetDown,
                                   MemberEvent::kTargetUp,
                                   MemberEvent::kSyncDone};

pb::Chain chain_of(const std::vector<pb::MemberState>& states) {
    pb::Chain chain;
    chain.set_id(1);
    chain.set_version(5);
    uint64_t target = 1;
    for (pb::MemberState s : states) {
        pb::ChainMember* m = chain.add_members();
        m->set_target(target++);
        m->set_state(s);
    }
    return chain;
}

// All chains of up to three members in any states.
std::vector<pb::Chain> all_chains() {
    std::vector<pb::Chain> out;
    for (size_t members = 1; members <= 3; ++members) {
        size_t count = 1;
        for (size_t i = 0; i < members; ++i) {
            count *= 5;
        }
        for (size_t n = 0; n < count; ++n) {
            std::vector<pb::MemberState> states;
            for (size_t i = 0, rest = n; i < members; ++i, rest /= 5) {
                states.push_back(kStates[rest % 5]);
            }
            out.push_back(chain_of(states));
        }
    }
    return out;
}

int rank(pb::MemberState s) {
    return s == pb::MEMBER_SERVING ? 0 : (s == pb::MEMBER_SYNCING ? 1 : 2);
}

void expect_ordered(const pb::Chain& chain) {
    for (int i = 1; i < chain.members_size(); ++i) {
        EXPECT_LE(rank(chain.members(i - 1).state()), rank(chain.members(i).state()))
            << chain.ShortDebugString();
    }
}

TEST(MemberStateTest, SoundChainsStaySoundUnderEveryEvent) {
    size_t checked = 0;
    for (const pb::Chain& before : all_chains()) {
        if (!chain_is_sound(before)) {
            continue;
        }
        for (int i = 0; i < before.members_size(); ++i) {
            for (MemberEvent event : kEvents) {
                pb::Chain after = apply_event(before, TargetId(before.members(i).target()), event);

                EXPECT_TRUE(chain_is_sound(after))
                    << before.ShortDebugString() << " -> " << after.ShortDebugString();
                expect_ordered(after);
                ++checked;
            }
        }
    }
    EXPECT_GT(checked, 100U);
}

TEST(MemberStateTest, VersionRisesByOneExactlyWhenAnythingChanges) {
    for (const pb::Chain& before : all_chains()) {
        for (int i = 0; i < before.members_size(); ++i) {
            for (MemberEvent event : kEvents) {
                pb::Chain after = apply_event(before, TargetId(before.members(i).target()), event);

                pb::Chain same = after;
                same.set_version(before.version());
                bool changed = same.SerializeAsString() != before.SerializeAsString();
                EXPECT_EQ(after.version(), before.version() + (changed ? 1 : 0));
                EXPECT_EQ(after.members_size(), before.members_size());
            }
        }
    }
}

TEST(MemberStateTest, NobodyStartsToServeWhileTheLastServingMembersAreAway) {
    for (const pb::Chain& before : all_chains()) {
        if (!chain_is_sound(before) || !serving_members(before).empty()) {
            continue;
        }
        for (const pb::ChainMember& m : before.members()) {
            for (MemberEvent event : kEvents) {
                bool a_return =
                    m.state() == pb::MEMBER_LAST_SERVING && event == MemberEvent::kTargetUp;
                pb::Chain after = apply_event(before, TargetId(m.target()), event);
                EXPECT_EQ(serving_members(after).empty(), !a_return);
            }
        }
    }
}

TEST(MemberStateTest, WhoGoesDownTogetherIsLastServingTogetherUntilOneIsBack) {
    pb::Chain chain = chain_of({pb::MEMBER_SERVING, pb::MEMBER_SERVING, pb::MEMBER_SYNCING});
    chain = apply_down(chain, {TargetId(1), TargetId(2), TargetId(3)});
    EXPECT_EQ(chain.version(), 6U);
    EXPECT_EQ(member_state(chain, TargetId(1)), pb::MEMBER_LAST_SERVING);
    EXPECT_EQ(member_state(chain, TargetId(2)), pb::MEMBER_LAST_SERVING);
    EXPECT_EQ(member_state(chain, TargetId(3)), pb::MEMBER_OFFLINE);

    chain = apply_event(chain, TargetId(3), MemberEvent::kTargetUp);
    EXPECT_EQ(member_state(chain, TargetId(3)), pb::MEMBER_WAITING);

    chain = apply_event(chain, TargetId(1), MemberEvent::kTargetUp);
    EXPECT_EQ(member_state(chain, TargetId(1)), pb::MEMBER_SERVING);
    EXPECT_EQ(member_state(chain, TargetId(2)), pb::MEMBER_OFFLINE);
    EXPECT_EQ(member_state(chain, TargetId(3)), pb::MEMBER_SYNCING);

    chain = apply_event(chain, TargetId(2), MemberEvent::kTargetUp);
    EXPECT_EQ(member_state(chain, TargetId(2)), pb::MEMBER_SYNCING);
}

TEST(MemberStateTest, AnySetOfTargetsThatGoesDownLeavesASoundChain) {
    for (const pb::Chain& before : all_chains()) {
        for (unsigned set = 0; chain_is_sound(before) && set < 8; ++set) {
            std::set<TargetId> down;
            for (uint64_t target = 1; target <= 3; ++target) {
                if ((set >> (target - 1) & 1) != 0) {
                    down.insert(TargetId(target));
                }
            }
            pb::Chain after = apply_down(before, down);
            EXPECT_TRUE(chain_is_sound(after)) << after.ShortDebugString();
            expect_ordered(after);
            for (TargetId server : serving_members(after)) {
                EXPECT_FALSE(down.contains(server));
            }
        }
    }
}

TEST(MemberStateTest, OnlyALastServerOrASyncedMemberBeginsToServe) {
    for (const pb::Chain& before : all_chains()) {
        for (int i = 0; i < before.members_size(); ++i) {
            for (MemberEvent event : kEvents) {
                pb::Chain after = apply_event(before, TargetId(before.members(i).target()), event);
                for (TargetId server : serving_members(after)) {
                    pb::MemberState was = member_state(before, server);
                    EXPECT_TRUE(
                        was == pb::MEMBER_SERVING ||
                        (was == pb::MEMBER_LAST_SERVING && event == MemberEvent::kTargetUp) ||
                        (was == pb::MEMBER_SYNCING && event == MemberEvent::kSyncDone));
                }
            }
        }
    }
}

TEST(MemberStateTest, EveryReachableStateLeadsBackToAllServing) {
    std::set<std::string> seen;
    std::deque<pb::Chain> queue{
        chain_of({pb::MEMBER_SERVING, pb::MEMBER_SERVING, pb::MEMBER_SERVING})};
    while (!queue.empty()) {
        pb::Chain chain = queue.front();
        queue.pop_front();
        chain.set_version(1);
        if (!seen.insert(chain.SerializeAsString()).second) {
            continue;
        }
        EXPECT_TRUE(chain_is_sound(chain)) << chain.ShortDebugString();
        for (uint64_t t = 1; t <= 3; ++t) {
            for (MemberEvent event : kEvents) {
                queue.push_back(apply_event(chain, TargetId(t), event));
            }
        }
        for (MemberEvent event : {MemberEvent::kTargetUp, MemberEvent::kSyncDone}) {
            for (uint64_t t = 1; t <= 3; ++t) {
                chain = apply_event(chain, TargetId(t), event);
            }
        }
        EXPECT_EQ(serving_members(chain).size(), 3U) << chain.ShortDebugString();
    }
    EXPECT_GT(seen.size(), 20U);
}

TEST(MemberStateTest, AReturningMemberOfALostChainWaitsAndSyncsWhenTheLastServerIsBack) {
    pb::Chain chain = chain_of({pb::MEMBER_SERVING, pb::MEMBER_SERVING});
    chain = apply_event(chain, TargetId(1), MemberEvent::kTargetDown);
    chain = apply_event(chain, TargetId(2), MemberEvent::kTargetDown);
    EXPECT_EQ(member_state(chain, TargetId(2)), pb::MEMBER_LAST_SERVING);

    chain = apply_event(chain, TargetId(1), MemberEvent::kTargetUp);
    EXPECT_EQ(member_state(chain, TargetId(1)), pb::MEMBER_WAITING);

    chain = apply_event(chain, TargetId(2), MemberEvent::kTargetUp);
    EXPECT_EQ(member_state(chain, TargetId(2)), pb::MEMBER_SERVING);
    EXPECT_EQ(member_state(chain, TargetId(1)), pb::MEMBER_SYNCING);
    EXPECT_EQ(head_of(chain), TargetId(2));
}

TEST(MemberStateTest, AStrangerChangesNothing) {
    pb::Chain chain = chain_of({pb::MEMBER_SERVING});

    pb::Chain after = apply_event(chain, TargetId(9), MemberEvent::kTargetDown);

    EXPECT_EQ(after.SerializeAsString(), chain.SerializeAsString());
}

}  // namespace
}  // namespace kdfs
