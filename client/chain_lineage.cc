#include "client/chain_lineage.h"

#include <algorithm>

namespace kdfs::client {

void ChainLineage::see(const ClusterMap& map) {
    for (const pb::Chain& chain : map.proto().chains()) {
        std::set<Server> servers;
        for (TargetId target : serving_members(chain)) {
            servers.emplace(target, map.node_of(target)->incarnation());
        }
        if (servers.empty()) {
            continue;  // Whoever serves next shows what became of it.
        }
        Chain& known = chains_[ChainId(chain.id())];
        bool goes_on = known.servers.empty() ||
                       std::any_of(servers.begin(), servers.end(), [&](const Server& server) {
                           return known.servers.contains(server);
                       });
        known.number += goes_on ? 0 : 1;
        known.servers = std::move(servers);
    }
}

uint64_t ChainLineage::number(ChainId chain) const {
    auto found = chains_.find(chain);
    return found == chains_.end() ? 0 : found->second.number;
}

}  // namespace kdfs::client
