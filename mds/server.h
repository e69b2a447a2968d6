#pragma once

#include "kdfs/kv/kv_store.h"
#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/task.h"
#include "mds/gc.h"
#include "mds/meta_service.h"
#include "mds/options.h"
#include "mds/recall.h"
#include "mds/session_service.h"
#include "mds/state.h"
#include "mds/trimmer.h"

#include <cstdint>
#include <memory>
#include <string>

namespace kdfs::mds {

// The metadata server with the cluster manager: answers every message of cluster.proto and
// meta.proto. Its state is in `store`; a new Server on the same store goes on where the old one
// ended, also in the middle of anything. One loop.
//
// Clients: a request of a session that a restarted server does not know again yet is kBusy; the
// client resumes its session on each new connection and then repeats what was unanswered. kFenced:
// the session is over.
class Server {
public:
    static constexpr uint8_t kFormatVersion = 1;

    // `env` and `store` outlive this.
    Server(Env& env, KvStore& store, Options options);
    ~Server();

    // Completes once it listens. kWrongCluster or kWrongVersion if the store is not for this
    // program, kBusy if the address is taken.
    Task<Status> start();
    // Answers no more, makes everything durable. Clients keep their sessions for the next start.
    Task<Status> stop();
    // Where it listens, with the port that was chosen.
    std::string address() const { return rpc_.address(); }
    std::string cluster_id() const;
    // The newest published map.
    std::shared_ptr<const ClusterMap> map() const { return state_.manager.map(); }
    Manager& manager() { return state_.manager; }
    // True if requests of the session are refused: it ended, or never was.
    bool session_over(SessionId session);
    // The sessions, and what they hold: leases and open files, counted per session and inode.
    struct Held {
        size_t sessions = 0;
        size_t inodes = 0;
    };
    Held held() const;

private:
    Task<Result<RpcReply>> handle(RpcRequest request);
    Task<Result<RpcReply>> heartbeat(RpcRequest request);
    Task<Result<RpcReply>> sync_done(RpcRequest request);
    Task<Result<RpcReply>> get_map(RpcRequest request);
    Task<Result<RpcReply>> scan(RpcRequest request);
    Task<Result<RpcReply>> scrub(RpcRequest request);
    Task<Result<RpcReply>> status(RpcRequest request);
    void push_map(const ClusterMap& map);
    void disconnected(uint64_t connection);
    // The journal's format and the number of this life, which is one above the last.
    Task<Result<uint64_t>> begin_life();
    Task<Status> format_namespace();

    State state_;
    Recaller recaller_;
    Trimmer trimmer_;
    Gc gc_;
    MetaService meta_;
    SessionService sessions_;
    // Last, so that the requests it serves go first.
    RpcServer rpc_;
};

}  // namespace kdfs::mds
