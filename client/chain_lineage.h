#pragma once

#include "kdfs/base/types.h"
#include "kdfs/proto/cluster_map.h"

#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace kdfs::client {

// Knows whether what was committed on a chain, but not synced, can still be there. Pure.
//
// A member that serves on, in the same run of its daemon, has every commit, and whoever begins to
// serve was brought up to date by one that had. Only when all that served are gone at once, and
// the chain comes back with daemons that were started anew, may commits have been lost (a power
// cut); then the chain's number goes up. Two equal numbers say that nothing was lost between.
class ChainLineage {
public:
    void see(const ClusterMap& map);
    uint64_t number(ChainId chain) const;

private:
    using Server = std::pair<TargetId, uint64_t>;  // and the incarnation of its daemon
    struct Chain {
        std::set<Server> servers;
        uint64_t number = 1;
    };
    std::map<ChainId, Chain> chains_;
};

}  // namespace kdfs::client
