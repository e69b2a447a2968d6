#pragma once

#include "kdfs/proto/cluster.pb.h"
#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/function.h"
#include "kdfs/rt/sync.h"
#include "storage/cluster_view.h"
#include "storage/replicator.h"
#include "storage/resync.h"
#include "storage/scrubber.h"

#include <memory>
#include <string>
#include <vector>

namespace kdfs::storage {

// What a daemon says of itself in every heartbeat.
struct NodeDescription {
    NodeId node;
    std::string name;
    std::string failure_domain;
    std::string address;
    std::string unix_address;
    uint64_t boot = 0;  // of the machine: another after each start of it; 0: not known
    // Empty for a daemon that was never in a cluster.
    std::string cluster_id;
};

// Keeps contact with the manager: a heartbeat every sixth of the node lease, and at once when
// somebody needs a newer map or this daemon acts by one. An answer extends the lease by half of
// it, counted from when the question was sent, and brings newer maps, as pushes do.
//
// A daemon acts by a map from the step in which it takes it; it reports the map's epoch once no
// change is under way that the map forbids (Replicator::acted_epoch).
class MembershipClient {
public:
    // Before the first map says otherwise.
    static constexpr Duration kLeaseDefault = std::chrono::seconds(3);
    static constexpr Duration kIntervalMin = std::chrono::milliseconds(20);

    // Sees the cluster's id when it is first learned, or an error after which the daemon should
    // end: it belongs to another cluster.
    struct Hooks {
        Function<void(const std::string&)> on_cluster;
        Function<void(Error)> on_refused;
    };

    // All outlive it. The manager's channel passes its pushes to on_push().
    MembershipClient(Env& env, ClusterView& view, RpcChannel& manager, Replicator& replicator);
    void start(NodeDescription self,
               std::vector<ChunkStore*> stores,
               Resync& resync,
               Scrubber& scrubber);
    void set_hooks(Hooks hooks) { hooks_ = std::move(hooks); }
    Task<Result<RpcReply>> on_push(RpcRequest request);
    void begin_stop();
    Task<void> stop();

private:
    Task<void> run();
    Task<pb::HeartbeatRequest> compose();
    Task<void> beat();
    void take_map(pb::ClusterMap map);
    void note_answer(const Status& status);
    Duration lease() const;

    Env& env_;
    ClusterView& view_;
    RpcChannel& manager_;
    Replicator& replicator_;
    Resync* resync_ = nullptr;
    Scrubber* scrubber_ = nullptr;
    NodeDescription self_;
    std::vector<ChunkStore*> stores_;
    Hooks hooks_;
    uint64_t reported_epoch_ = 0;
    bool answered_ = true;
    bool stopping_ = false;
    TaskScope scope_;
};

}  // namespace kdfs::storage
