#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/proto/cluster_map.h"
#include "kdfs/rt/sync.h"

#include <memory>
#include <string>

namespace kdfs::storage {

// What this daemon knows of the cluster, and whether it may act by it. One object, written by the
// membership client, read by everybody else.
//
// A daemon acts only while its lease runs and the map shows its own incarnation online: before and
// after, somebody else may have been given its place.
class ClusterView {
public:
    ClusterView(NodeId node, uint64_t incarnation) : node_(node), incarnation_(incarnation) {}

    NodeId node() const { return node_; }
    uint64_t incarnation() const { return incarnation_; }
    // Null before the first map.
    const std::shared_ptr<const ClusterMap>& map() const { return map_; }
    Epoch epoch() const { return map_ ? map_->epoch() : Epoch(); }

    bool acting(TimePoint now) const;
    // The chain, if the daemon is acting and its version is `version`. kNotServing, kNotFound, or
    // kStaleMap otherwise.
    Result<const pb::Chain*> chain(ChainId chain, uint64_t version, TimePoint now) const;
    // kFenced for a session that may write or read no more.
    Status check_session(SessionId session) const;
    // Where to reach the daemon that has `target`; empty if the map does not say.
    std::string address_of(TargetId target) const;

    // Pulsed whenever the map or the lease changed, and when wait_for_change() is to end.
    Event& changed() { return changed_; }
    // Set by whoever learns that there is a newer map; the membership client asks for it.
    Event& refresh() { return refresh_; }

    void set_map(std::shared_ptr<const ClusterMap> map);
    void extend_lease(TimePoint until);

private:
    NodeId node_;
    uint64_t incarnation_;
    std::shared_ptr<const ClusterMap> map_;
    TimePoint act_until_{};
    Event changed_;
    Event refresh_;
};

}  // namespace kdfs::storage
