#pragma once

#include "kdfs/kv/kv_store.h"
#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/disk.h"
#include "kdfs/rt/env.h"
#include "storage/chunk_store.h"
#include "storage/cluster_view.h"
#include "storage/membership_client.h"
#include "storage/peer_pool.h"
#include "storage/replicator.h"
#include "storage/resync.h"
#include "storage/scrubber.h"

#include <memory>
#include <string>
#include <vector>

namespace kdfs::storage {

// One target of a daemon. `disk` and `kv` outlive the server.
struct TargetOptions {
    Disk* disk = nullptr;
    KvStore* kv = nullptr;
    StoreOptions store;
};

struct ServerOptions {
    NodeId node;
    std::string name;
    // Nodes of one domain fail together; empty: the node by itself.
    std::string failure_domain;
    std::string manager;
    std::string listen = "127.0.0.1:0";
    // Also listened on, for peers on the same machine; may be empty.
    std::string unix_listen;
    // What the cluster map should name; empty: the address listened on.
    std::string advertise;
    // As in NodeDescription.
    uint64_t boot = 0;
    std::string cluster_id;
    MembershipClient::Hooks hooks;
};

// A storage daemon: its targets, and everything that answers for them. main() and the simulator
// build it alike. Destroying it while it runs is a crash; stop() is the other way.
class Server {
public:
    Server(Env& env, std::vector<TargetOptions> targets, ServerOptions options);
    ~Server();

    // Recovers the targets, listens, and starts to call the manager. Serves once the cluster map
    // has this daemon. An error: nothing runs.
    Task<Status> start();
    // Answers what is under way, syncs, and ends.
    Task<void> stop();

    std::string address() const { return rpc_.address(); }
    const ClusterView& view() const { return view_; }
    ChunkStore* store(TargetId target) const { return replicator_.store(target); }
    size_t resync_jobs() const { return resync_.jobs(); }

private:
    Task<Result<RpcReply>> serve(RpcRequest request);
    static Task<Result<RpcReply>> refuse();
    static Task<Status> recover(ChunkStore* store);

    Env& env_;
    ServerOptions options_;
    std::vector<std::unique_ptr<ChunkStore>> stores_;
    ClusterView view_;
    PeerPool peers_;
    RpcChannel manager_;
    Replicator replicator_;
    Resync resync_;
    Scrubber scrubber_;
    MembershipClient membership_;
    RpcServer rpc_;
    TaskScope scope_;
};

}  // namespace kdfs::storage
