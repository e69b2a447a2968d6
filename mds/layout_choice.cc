#include "mds/layout_choice.h"

#include "kdfs/proto/layout.h"
#include "kdfs/proto/placement.h"

#include <algorithm>
#include <vector>

namespace kdfs::mds {
namespace {

constexpr uint32_t kReplicasDefault = 2;

// A chain of the table whose head is on the node; 0 if there is none.
uint64_t chain_headed_by(const ClusterMap& map,
                         const pb::ChainTable& table,
                         const std::string& node_name,
                         uint64_t draw) {
    std::vector<uint64_t> local;
    for (uint64_t id : table.chains()) {
        const pb::Node* node = map.node_of(head_of(*map.chain(ChainId(id))));
        if (node != nullptr && node->name() == node_name) {
            local.push_back(id);
        }
    }
    return local.empty() ? 0 : local[draw % local.size()];
}

}  // namespace

uint32_t replicas_of(const ClusterMap& map, const pb::Policy& policy) {
    if (policy.replicas() != 0) {
        return policy.replicas();
    }
    return table_for_replicas(map.proto(), kReplicasDefault) != 0 ? kReplicasDefault : 1;
}

Result<pb::Layout> choose_layout(const ClusterMap& map,
                                 const pb::Policy& policy,
                                 const std::string& node_name,
                                 uint64_t draw) {
    if (map.proto().tables().empty()) {
        return Error(Errc::kBusy,
                     "the cluster has no chains yet: it waits for storage daemons to report");
    }
    uint32_t replicas = replicas_of(map, policy);
    const pb::ChainTable* table = map.table(table_for_replicas(map.proto(), replicas));
    if (table == nullptr) {
        return Error(Errc::kNoSpace,
                     "the policy wants " + std::to_string(replicas) +
                         " replicas, which this cluster had too few nodes for: lower them with "
                         "`kdfs policy set`");
    }
    pb::Layout layout;
    layout.set_chunk_bytes(policy.chunk_bytes() != 0 ? policy.chunk_bytes() : kChunkBytesDefault);
    uint32_t width = policy.width() != 0 ? policy.width() : kWidthDefault;
    layout.set_width(std::min(width, static_cast<uint32_t>(table->chains_size())));
    layout.set_table(table->id());
    layout.set_replicas(replicas);
    // Small: it is stored with every file.
    uint64_t start = draw % static_cast<uint64_t>(table->chains_size());
    layout.set_seed(start);
    if (policy.placement() == pb::PLACEMENT_LOCAL) {
        uint64_t chain = chain_headed_by(map, *table, node_name, draw);
        layout.set_placement(pb::PLACEMENT_LOCAL);
        layout.set_first_chain(chain != 0 ? chain : table->chains(static_cast<int>(start)));
        layout.set_width(1);
    }
    KDFS_TRY(check_layout(layout));
    return layout;
}

}  // namespace kdfs::mds
