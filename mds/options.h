#pragma once

#include "kdfs/base/types.h"
#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/placement.h"
#include "mds/membership.h"
#include "mds/meta_log.h"

#include <chrono>
#include <string>

namespace kdfs::mds {

struct Options {
    // Where to listen; port 0: the system chooses.
    std::string address = "127.0.0.1:0";
    // Of a new cluster; empty: drawn. A store of another cluster is refused with it.
    std::string cluster_id;
    uint64_t expected_nodes = 1;
    uint64_t chains_per_target = kChainsPerTarget;
    Duration node_lease = Membership::kNodeLeaseDefault;
    Duration session_lease = std::chrono::seconds(8);
    Duration sync_interval = LocalMetaLog::kSyncIntervalDefault;
    // Of the root directory of a new cluster; what it leaves open has the defaults of the code.
    pb::Policy root_policy;
};

}  // namespace kdfs::mds
