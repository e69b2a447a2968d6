#pragma once

#include "kdfs/base/result.h"
#include "kdfs/proto/cluster_map.h"
#include "kdfs/proto/meta.pb.h"

#include <cstdint>
#include <string>

namespace kdfs::mds {

// The layout of a new file below a directory with the effective policy `policy`: pure. What the
// policy leaves open has a default: 1 MiB chunks, kWidthDefault stripes, two replicas where there
// are two nodes, striped. `draw` is a random number: where in the chain table the file starts.
// Local placement takes a chain whose head is on the node `node_name`, or any if there is none.
//
// kBusy while the cluster has no chains yet; kNoSpace if the policy wants more replicas than any
// table has.
Result<pb::Layout> choose_layout(const ClusterMap& map,
                                 const pb::Policy& policy,
                                 const std::string& node_name,
                                 uint64_t draw);

// How many replicas a file below a directory with this effective policy gets.
uint32_t replicas_of(const ClusterMap& map, const pb::Policy& policy);

}  // namespace kdfs::mds
