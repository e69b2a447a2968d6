#pragma once

#include "kdfs/proto/cluster.pb.h"
#include "mds/state.h"

namespace kdfs::mds {

// What `kdfs status` shows. `counts` are the namespace's.
pb::StatusReply make_status(const State& state, const Counts& counts);

// The part that speaks: each problem in one sentence with its cause and what to do. Pure.
void add_warnings(const Membership& membership, uint64_t expected_nodes, pb::StatusReply& reply);

}  // namespace kdfs::mds
