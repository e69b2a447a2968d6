#include "kdfs/proto/cluster_map.h"
#include "kdfs/proto/layout.h"
#include "kdfs/proto/placement.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

namespace kdfs {
namespace {

// `nodes` nodes with `targets_each` targets of weight 1 each; node n in domain n mod `domains` (0:
// none).
pb::ClusterMap cluster(uint64_t nodes, uint64_t targets_each, uint64_t domains = 0) {
    pb::ClusterMap map;
    map.set_epoch(1);
    for (uint64_t n = 1; n <= nodes; ++n) {
        pb::Node* node = map.add_nodes();
        node->set_id(n);
        if (domains != 0) {
            node->set_failure_domain("rack" + std::to_string(n % domains));
        }
        for (uint64_t t = 0; t < targets_each; ++t) {
            pb::Target* target = map.add_targets();
            target->set_id(n * 100 + t);
            target->set_node(n);
            target->set_weight(1);
        }
    }
    return map;
}

pb::ClusterMap with_plan(pb::ClusterMap map, const PlacementPlan& plan) {
    for (const pb::Chain& c : plan.chains) {
        *map.add_chains() = c;
    }
    for (const pb::ChainTable& t : plan.tables) {
        *map.add_tables() = t;
    }
    return map;
}

struct Counts {
    std::map<uint64_t, uint64_t> memberships;
    std::map<uint64_t, uint64_t> heads;
};

Counts counts_of(const PlacementPlan& plan, uint32_t replicas) {
    Counts out;
    for (const pb::Chain& c : plan.chains) {
        if (c.replicas() != replicas) {
            continue;
        }
        ++out.heads[c.members(0).target()];
        for (const pb::ChainMember& m : c.members()) {
            ++out.memberships[m.target()];
        }
    }
    return out;
}

TEST(PlacementTest, EveryReplicaCountTheNodesAllowGetsAValidTable) {
    for (uint64_t nodes : {1, 2, 3, 5, 9}) {
        pb::ClusterMap map = cluster(nodes, 2);

        auto plan = make_placement(map, 1, 1);

        ASSERT_TRUE(plan.ok());
        EXPECT_EQ(plan->tables.size(), std::min<size_t>(nodes, kReplicasMax));
        EXPECT_TRUE(ClusterMap::make(with_plan(map, *plan)).ok());
        for (const pb::Chain& c : plan->chains) {
            EXPECT_EQ(static_cast<uint32_t>(c.members_size()), c.replicas());
        }
    }
}

TEST(PlacementTest, StatesAndPlacementsThatAreNotKnownAreRefused) {
    pb::ClusterMap map = cluster(3, 1);
    auto plan = make_placement(map, 1, 1);
    ASSERT_TRUE(plan.ok());
    map = with_plan(map, *plan);
    map.mutable_chains(0)->mutable_members(0)->set_state(static_cast<pb::MemberState>(77));
    EXPECT_FALSE(ClusterMap::make(map).ok());

    pb::Layout layout;
    layout.set_chunk_bytes(kChunkBytesMin);
    layout.set_width(1);
    layout.set_replicas(1);
    EXPECT_TRUE(check_layout(layout).ok());
    layout.set_placement(static_cast<pb::Placement>(77));
    EXPECT_FALSE(check_layout(layout).ok());
}

TEST(PlacementTest, NoTwoMembersOfAChainShareANode) {
    pb::ClusterMap map = cluster(4, 3);

    auto plan = make_placement(map, 1, 1);

    ASSERT_TRUE(plan.ok());
    for (const pb::Chain& c : plan->chains) {
        std::set<uint64_t> nodes;
        for (const pb::ChainMember& m : c.members()) {
            EXPECT_TRUE(nodes.insert(m.target() / 100).second) << c.ShortDebugString();
        }
    }
}

TEST(PlacementTest, MembersAreInDifferentDomainsWhereThereAreEnough) {
    pb::ClusterMap map = cluster(6, 1, 3);

    auto plan = make_placement(map, 1, 1);

    ASSERT_TRUE(plan.ok());
    for (const pb::Chain& c : plan->chains) {
        if (c.replicas() > 3) {
            continue;
        }
        std::set<uint64_t> domains;
        for (const pb::ChainMember& m : c.members()) {
            domains.insert(m.target() / 100 % 3);
        }
        EXPECT_EQ(domains.size(), c.replicas()) << c.ShortDebugString();
    }
}

TEST(PlacementTest, MembershipsAndHeadsAreSpreadEvenly) {
    for (uint64_t nodes : {2, 3, 4, 7}) {
        pb::ClusterMap map = cluster(nodes, 2);
        auto plan = make_placement(map, 1, 1);
        ASSERT_TRUE(plan.ok());
        for (const pb::ChainTable& table : plan->tables) {
            Counts counts = counts_of(*plan, table.replicas());
            uint64_t share = kChainsPerTarget;
            uint64_t heads = static_cast<uint64_t>(table.chains_size()) / (nodes * 2);
            for (const pb::Target& t : map.targets()) {
                EXPECT_GE(counts.memberships[t.id()] + 2, share);
                EXPECT_LE(counts.memberships[t.id()], share + 2);
                EXPECT_GE(counts.heads[t.id()] + 3, heads);
                EXPECT_LE(counts.heads[t.id()], heads + 4);
            }
        }
    }
}

TEST(PlacementTest, AHeavierTargetGetsMore) {
    pb::ClusterMap map = cluster(4, 1);
    map.mutable_targets(0)->set_weight(3);

    auto plan = make_placement_for(map, 1, 1, 1);

    ASSERT_TRUE(plan.ok());
    Counts counts = counts_of(*plan, 1);
    EXPECT_NEAR(static_cast<double>(counts.memberships[100]), 128.0, 2.0);
    EXPECT_NEAR(static_cast<double>(counts.memberships[200]), 42.7, 2.0);
}

TEST(PlacementTest, TheSameClusterGivesTheSameChainsInAnyOrder) {
    pb::ClusterMap map = cluster(3, 2);
    pb::ClusterMap turned = map;
    turned.mutable_targets()->SwapElements(0, 5);
    turned.mutable_targets()->SwapElements(1, 3);

    auto a = make_placement(map, 1, 1);
    auto b = make_placement(turned, 1, 1);

    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_EQ(with_plan({}, *a).SerializeAsString(), with_plan({}, *b).SerializeAsString());
}

TEST(PlacementTest, MoreReplicasThanNodesAreRefused) {
    EXPECT_EQ(make_placement_for(cluster(2, 4), 3, 1, 1).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(make_placement(cluster(2, 0), 1, 1).error().code, Errc::kInvalidArgument);
}

}  // namespace
}  // namespace kdfs
