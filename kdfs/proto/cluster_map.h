#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/proto/cluster.pb.h"

#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace kdfs {

// One epoch of the cluster map, checked and indexed. Immutable; shared by pointer, so that a
// coroutine keeps the map it decided by across an await and compares epochs afterwards.
class ClusterMap {
public:
    // kMalformed with the first inconsistency: ids twice or 0, references to nothing, a chain with
    // no members or more than kReplicasMax * 2, counts beyond the bounds below.
    static Result<std::shared_ptr<const ClusterMap>> make(pb::ClusterMap map);

    static constexpr int kNodesMax = 4096;
    static constexpr int kTargetsMax = 16384;
    static constexpr int kChainsMax = 1 << 20;

    Epoch epoch() const { return Epoch(map_.epoch()); }
    const pb::ClusterMap& proto() const { return map_; }
    // Null if there is none of that id.
    const pb::Node* node(NodeId id) const { return find(nodes_, id); }
    const pb::Target* target(TargetId id) const { return find(targets_, id); }
    const pb::Chain* chain(ChainId id) const { return find(chains_, id); }
    const pb::ChainTable* table(uint64_t id) const;
    const pb::Node* node_of(TargetId target) const;
    bool session_fenced(SessionId session) const;

private:
    explicit ClusterMap(pb::ClusterMap map) : map_(std::move(map)) {}
    Status index();
    Status index_chains();
    template <class Map, class IdType>
    static auto find(const Map& map, IdType id) -> decltype(map.begin()->second) {
        auto found = map.find(id);
        return found == map.end() ? nullptr : found->second;
    }

    pb::ClusterMap map_;
    std::unordered_map<NodeId, const pb::Node*> nodes_;
    std::unordered_map<TargetId, const pb::Target*> targets_;
    std::unordered_map<ChainId, const pb::Chain*> chains_;
    std::unordered_map<uint64_t, const pb::ChainTable*> tables_;
    std::set<uint64_t> fenced_;
};

// The state of `target` in `chain`; MEMBER_NONE if it is no member.
pb::MemberState member_state(const pb::Chain& chain, TargetId target);
// The members that take writes, in the order writes travel: serving, then syncing.
std::vector<TargetId> write_path(const pb::Chain& chain);
// The members that answer reads.
std::vector<TargetId> serving_members(const pb::Chain& chain);
// The one that orders writes; none if nobody serves.
TargetId head_of(const pb::Chain& chain);
// The member after `target` on the write path; none if it is the last.
TargetId successor_of(const pb::Chain& chain, TargetId target);

}  // namespace kdfs
