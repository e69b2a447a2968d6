#include "kdfs/proto/cluster_map.h"

#include <utility>

namespace kdfs {
namespace {

Error malformed(const std::string& what) { return {Errc::kMalformed, "cluster map: " + what}; }

}  // namespace

Result<std::shared_ptr<const ClusterMap>> ClusterMap::make(pb::ClusterMap map) {
    std::shared_ptr<ClusterMap> out(new ClusterMap(std::move(map)));
    KDFS_TRY(out->index());
    KDFS_TRY(out->index_chains());
    return std::shared_ptr<const ClusterMap>(std::move(out));
}

Status ClusterMap::index() {
    if (map_.nodes_size() > kNodesMax || map_.targets_size() > kTargetsMax ||
        map_.chains_size() > kChainsMax) {
        return malformed("more nodes, targets or chains than the bounds allow");
    }
    for (const pb::Node& n : map_.nodes()) {
        if (n.id() == 0 || !nodes_.emplace(NodeId(n.id()), &n).second) {
            return malformed("node id " + std::to_string(n.id()) + " is 0 or twice there");
        }
    }
    for (const pb::Target& t : map_.targets()) {
        if (t.id() == 0 || !targets_.emplace(TargetId(t.id()), &t).second) {
            return malformed("target id " + std::to_string(t.id()) + " is 0 or twice there");
        }
        if (node(NodeId(t.node())) == nullptr) {
            return malformed("target " + std::to_string(t.id()) + " is on an unknown node");
        }
    }
    fenced_.insert(map_.fenced_sessions().begin(), map_.fenced_sessions().end());
    return {};
}

Status ClusterMap::index_chains() {
    for (const pb::Chain& c : map_.chains()) {
        std::string name = "chain " + std::to_string(c.id());
        if (c.id() == 0 || !chains_.emplace(ChainId(c.id()), &c).second) {
            return malformed(name + ": id is 0 or twice there");
        }
        if (c.members_size() == 0 || static_cast<uint32_t>(c.members_size()) > 2 * kReplicasMax) {
            return malformed(name + " has no or too many members");
        }
        std::set<uint64_t> seen;
        for (const pb::ChainMember& m : c.members()) {
            if (target(TargetId(m.target())) == nullptr || !seen.insert(m.target()).second) {
                return malformed(name + ": target " + std::to_string(m.target()) +
                                 " is unknown or twice there");
            }
            if (!pb::MemberState_IsValid(m.state())) {
                return malformed(name + ": the state of target " + std::to_string(m.target()) +
                                 " is not known");
            }
        }
    }
    for (const pb::ChainTable& t : map_.tables()) {
        if (t.id() == 0 || t.chains_size() == 0 || !tables_.emplace(t.id(), &t).second) {
            return malformed("chain table " + std::to_string(t.id()) +
                             " is empty, has id 0 or is twice there");
        }
        for (uint64_t c : t.chains()) {
            if (chain(ChainId(c)) == nullptr) {
                return malformed("chain table " + std::to_string(t.id()) + " names unknown chain " +
                                 std::to_string(c));
            }
        }
    }
    return {};
}

const pb::ChainTable* ClusterMap::table(uint64_t id) const { return find(tables_, id); }

const pb::Node* ClusterMap::node_of(TargetId id) const {
    const pb::Target* t = target(id);
    return t == nullptr ? nullptr : node(NodeId(t->node()));
}

bool ClusterMap::session_fenced(SessionId session) const {
    return session.value < map_.session_floor() || fenced_.contains(session.value);
}

pb::MemberState member_state(const pb::Chain& chain, TargetId target) {
    for (const pb::ChainMember& m : chain.members()) {
        if (m.target() == target.value) {
            return m.state();
        }
    }
    return pb::MEMBER_NONE;
}

std::vector<TargetId> serving_members(const pb::Chain& chain) {
    std::vector<TargetId> out;
    for (const pb::ChainMember& m : chain.members()) {
        if (m.state() == pb::MEMBER_SERVING) {
            out.emplace_back(m.target());
        }
    }
    return out;
}

std::vector<TargetId> write_path(const pb::Chain& chain) {
    std::vector<TargetId> out = serving_members(chain);
    if (out.empty()) {
        return out;
    }
    for (const pb::ChainMember& m : chain.members()) {
        if (m.state() == pb::MEMBER_SYNCING) {
            out.emplace_back(m.target());
        }
    }
    return out;
}

TargetId head_of(const pb::Chain& chain) {
    for (const pb::ChainMember& m : chain.members()) {
        if (m.state() == pb::MEMBER_SERVING) {
            return TargetId(m.target());
        }
    }
    return {};
}

TargetId successor_of(const pb::Chain& chain, TargetId target) {
    std::vector<TargetId> path = write_path(chain);
    for (size_t i = 0; i + 1 < path.size(); ++i) {
        if (path[i] == target) {
            return path[i + 1];
        }
    }
    return {};
}

}  // namespace kdfs
