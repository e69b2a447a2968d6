#pragma once

#include "kdfs/kv/kv_store.h"
#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"
#include "mds/lease_table.h"
#include "mds/manager.h"
#include "mds/meta_log.h"
#include "mds/namespace.h"
#include "mds/options.h"
#include "mds/sessions.h"
#include "mds/storage_client.h"

#include <map>
#include <memory>

namespace kdfs::mds {

// What the parts of one metadata server share. The Server owns it and it outlives them all. One
// loop; a decision over several of these members is made without suspending.
struct State {
    State(Env& e, KvStore& s, const Options& o)
        : env(e),
          store(s),
          options(o),
          log(e, s, o.sync_interval),
          space(s),
          manager(e, s, log, manager_options(o)),
          sessions(o.session_lease) {}

    // Of this life, set by the server at its start: numbers that must not repeat start above it.
    void begin_life(uint64_t life) {
        constexpr int kLifeShift = 40;
        leases = std::make_unique<LeaseTable>((life << kLifeShift) + 1);
        storage = std::make_unique<StorageClient>(env, manager, (life << kLifeShift) + 1);
    }

    // As Sessions::use(); wakes who waits until the session has heard what it may not keep.
    Result<Session*> use_session(SessionId id) {
        Session* known = sessions.find(id);
        bool unheard = known != nullptr && known->unheard;
        Result<Session*> session = sessions.use(id, env.now());
        if (unheard && session.ok()) {
            sessions_changed.pulse();
        }
        return session;
    }

    // Null if the session has no connection now.
    std::shared_ptr<RpcConnection> connection_of(SessionId session) const {
        auto found = connections.find(session);
        return found == connections.end() ? nullptr : found->second;
    }

    static Manager::Options manager_options(const Options& o) {
        Manager::Options out;
        out.membership.node_lease = o.node_lease;
        out.membership.expected_nodes = o.expected_nodes;
        out.membership.chains_per_target = o.chains_per_target;
        out.cluster_id = o.cluster_id;
        return out;
    }

    Env& env;
    KvStore& store;
    Options options;
    LocalMetaLog log;
    Namespace space;
    Manager manager;
    Sessions sessions;
    std::unique_ptr<LeaseTable> leases;
    std::unique_ptr<StorageClient> storage;
    // Over which the session is called back.
    std::map<SessionId, std::shared_ptr<RpcConnection>> connections;
    // Pulsed whenever a session comes, resumes, loses its connection or ends; set when stopping.
    Event sessions_changed;
    bool stopping = false;
};

// Loads what the last call of the namespace lacked. The log says so if that fails.
inline Task<Status> load_missing(State& state) {
    Namespace::Missing missing = state.space.missing();
    Status loaded;
    if (missing.beyond.empty()) {
        loaded = co_await state.store.load(missing.first);
    } else {
        loaded =
            co_await state.store.load_range(missing.first, missing.beyond, missing.entries_max);
    }
    if (!loaded.ok()) {
        LogEvent(state.env.log(), LogLevel::kError, "metadata cannot be read")
            .with("cause", loaded.error().to_string())
            .with("next", "restore the metadata server's directory from a good copy");
    }
    co_return loaded;
}

}  // namespace kdfs::mds
