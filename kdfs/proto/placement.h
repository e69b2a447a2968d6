#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/proto/cluster.pb.h"

#include <cstdint>
#include <string>
#include <vector>

namespace kdfs {

// Names the algorithm below; a change of what it computes gets a new number. What it computed is
// stored in the map as it is, so nothing is computed again later.
inline constexpr uint32_t kPlacementAlgorithm = 1;
// How many chains of each table a target of average weight is a member of, at least; what a
// cluster has unless told otherwise.
inline constexpr uint64_t kChainsPerTarget = 64;

struct PlacementPlan {
    std::vector<pb::Chain> chains;
    std::vector<pb::ChainTable> tables;
};

// Which targets make chains together: pure, the same on every machine. For each replica count from
// 1 to the number of nodes (kReplicasMax at most) one table, with enough chains that every target
// of average weight is in `chains_per_target` (at least 1) of them. Chains are filled by weighted
// rendezvous hashing under quotas: a target gets its share of memberships by weight and heads about
// equally many chains. Members of a chain are in different failure domains where there are enough
// domains (a node without one is its own), else on different nodes; never two on one node.
//
// Ids count up from `first_chain` and `first_table`. Fails with kInvalidArgument if there is no
// target. Cost: chains times targets.
Result<PlacementPlan> make_placement(const pb::ClusterMap& map,
                                     uint64_t first_chain,
                                     uint64_t first_table,
                                     uint64_t chains_per_target = kChainsPerTarget);

// The same for one table.
Result<PlacementPlan> make_placement_for(const pb::ClusterMap& map,
                                         uint32_t replicas,
                                         uint64_t first_chain,
                                         uint64_t table_id,
                                         uint64_t chains_per_target = kChainsPerTarget);

// 0 if the map has no table with that many replicas; else the newest table's id.
uint64_t table_for_replicas(const pb::ClusterMap& map, uint32_t replicas);

}  // namespace kdfs
