#include "mds/session_service.h"

#include "kdfs/base/codec.h"
#include "kdfs/base/mutant.h"
#include "kdfs/kv/kv_load.h"
#include "kdfs/proto/layout.h"
#include "kdfs/proto/wire.h"
#include "mds/schema.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

namespace kdfs::mds {
namespace {

std::string next_session_key() {
    return std::string(1, static_cast<char>(Table::kManager)) + "next_session";
}

std::string encode_next_session(uint64_t number) {
    std::string out;
    Writer writer(out);
    writer.u8(kRecordFormat);
    writer.u64(number);
    return out;
}

Result<uint64_t> decode_next_session(std::string_view record) {
    Reader in(record);
    uint8_t format = in.u8();
    uint64_t number = in.u64();
    if (!in.done() || format != kRecordFormat) {
        return Error(Errc::kCorrupt,
                     "the record of the next session number is damaged: restore the state "
                     "directory of the metadata server from a copy");
    }
    return number;
}

constexpr size_t kNameBytesMax = 1024;
// Of the map in an answer: the field's number and its length.
constexpr size_t kMapHeadBytes = 16;

}  // namespace

SessionService::SessionService(State& state, MetaService& meta, Trimmer& trimmer)
    : state_(state),
      meta_(meta),
      trimmer_(trimmer),
      scope_(state.env.scheduler()),
      parts_(state.env.scheduler()) {}

Task<Status> SessionService::start() {
    KDFS_CO_TRY_ASSIGN(std::optional<std::string> next,
                       co_await get_loaded(state_.store, next_session_key()));
    if (next) {
        KDFS_CO_TRY_ASSIGN(uint64_t stored, decode_next_session(*next));
        next_session_ = std::max<uint64_t>(1, stored);
    }
    KDFS_CO_TRY_ASSIGN(std::vector<KvEntry> entries,
                       co_await scan_loaded(state_.store,
                                            table_begin(Table::kSession),
                                            table_end(Table::kSession),
                                            Sessions::kSessionsMax));
    KDFS_CO_TRY(restore_sessions(entries));
    KDFS_CO_TRY(co_await load_replies());
    co_return Status();
}

Status SessionService::restore_sessions(const std::vector<KvEntry>& entries) {
    for (const KvEntry& e : entries) {
        KDFS_TRY_ASSIGN(Session session, Sessions::decode(e.key, e.value));
        state_.sessions.restore(session.id, session.name, session.node_name, state_.env.now());
        if (state_.manager.map()->session_fenced(session.id)) {
            // The storage daemons refuse it already: it cannot come back, its end is finished.
            state_.sessions.find(session.id)->doomed = true;
        }
    }
    return {};
}

Task<Status> SessionService::load_replies() {
    std::vector<SessionId> ids;
    for (const auto& [id, session] : state_.sessions.all()) {
        ids.push_back(id);
    }
    for (SessionId id : ids) {
        std::string first = reply_key(id, 0);
        std::string beyond = replies_end(id);
        constexpr uint64_t kMost = Sessions::kRepliesMax * 2;
        KDFS_CO_TRY_ASSIGN(std::vector<KvEntry> found,
                           co_await scan_loaded(state_.store, first, beyond, kMost));
        for (const KvEntry& e : found) {
            Reader key(e.key);
            key.u8();
            key.be64();
            state_.sessions.find(id)->replied.insert(key.be64());
        }
    }
    co_return Status();
}

void SessionService::watch() { scope_.spawn(look_for_expired()); }

Task<void> SessionService::stop() {
    stop_.set();
    co_await scope_.close();
    co_await parts_.close();
}

Task<Result<RpcReply>> SessionService::open(RpcRequest rpc) {
    KDFS_CO_TRY_ASSIGN(auto request, decode<pb::OpenSessionRequest>(rpc.body));
    const std::string& cluster = state_.manager.map()->proto().cluster_id();
    if (!request.cluster_id().empty() && request.cluster_id() != cluster) {
        co_return Error(Errc::kWrongCluster,
                        "the client expects cluster " + request.cluster_id() + ", this is " +
                            cluster + ": give it the address of its own metadata server");
    }
    if (request.name().size() > kNameBytesMax || request.node_name().size() > kNameBytesMax) {
        co_return Error(Errc::kInvalidArgument, "a session's name has at most 1024 bytes");
    }
    const auto& held = request.held();
    bool known = std::all_of(held.begin(), held.end(), [](const pb::HeldLease& claim) {
        return pb::LeaseMode_IsValid(claim.mode());
    });
    if (!known) {
        co_return Error(Errc::kInvalidArgument, "a lease mode that is not known is claimed");
    }
    Result<pb::OpenSessionReply> reply = pb::OpenSessionReply();
    bool resumes = request.resume() != 0;
    if (resumes) {
        reply = co_await resume(std::move(request), rpc.connection);
    } else {
        reply = co_await open_new(std::move(request), rpc.connection);
    }
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    using std::chrono::duration_cast;
    using std::chrono::milliseconds;
    auto lease_ms = duration_cast<milliseconds>(state_.sessions.lease()).count();
    reply->set_lease_ms(static_cast<uint32_t>(lease_ms));
    const pb::ClusterMap& map = state_.manager.map()->proto();
    // A client that resumes has a map; if much was refused, its next renewal gets the newest.
    if (!resumes || reply->ByteSizeLong() + map.ByteSizeLong() + kMapHeadBytes <= kBodyBytesMax) {
        *reply->mutable_map() = map;
    }
    co_return RpcReply(kdfs::encode(*reply));
}

Task<Result<pb::OpenSessionReply>> SessionService::open_new(
    pb::OpenSessionRequest request,
    std::shared_ptr<RpcConnection> connection) {
    Session session;
    session.id = SessionId(next_session_++);
    session.name = request.name();
    session.node_name = request.node_name();
    session.heard = state_.env.now();
    session.resumed = true;
    session.attempt = request.attempt();
    SessionId id = session.id;
    KvBatch batch;
    batch.put(Sessions::key(id), Sessions::encode(session));
    batch.put(next_session_key(), encode_next_session(next_session_));
    Result<Session*> added = state_.sessions.add(std::move(session));
    if (!added.ok()) {
        co_return std::move(added).error();
    }
    KDFS_CO_TRY(state_.log.append(batch));
    bind(id, std::move(connection));
    if (!mutant("reuse_session_numbers")) {
        KDFS_CO_TRY(co_await state_.log.durable());
    }
    LogEvent(state_.env.log(), LogLevel::kInfo, "session opened")
        .with("session", id)
        .with("name", request.name());
    pb::OpenSessionReply reply;
    reply.set_session(id.value);
    co_return reply;
}

Task<Result<pb::OpenSessionReply>> SessionService::resume(
    pb::OpenSessionRequest request,
    std::shared_ptr<RpcConnection> connection) {
    SessionId id(request.resume());
    KDFS_CO_TRY(may_resume(id));
    // While it counts as holder of what it claims no longer, so that nobody sees an older size.
    KDFS_CO_TRY(co_await take_claims(request));
    KDFS_CO_TRY(may_resume(id));
    Session* session = state_.sessions.find(id);
    bool known = session->resumed;
    pb::OpenSessionReply reply;
    reply.set_session(id.value);
    if (known && request.attempt() < session->attempt) {
        co_return Error(Errc::kUnreachable,
                        "session " + std::to_string(id.value) +
                            " was resumed over a newer connection meanwhile");
    }
    if (known && request.attempt() == session->attempt) {
        // Only once: what it held when it sent this may be old.
        reply.mutable_refused()->Assign(session->refused.begin(), session->refused.end());
        co_return reply;
    }
    auto before = state_.leases->inodes(id);
    session->refused = reconcile(id, known, request);
    reply.mutable_refused()->Assign(session->refused.begin(), session->refused.end());
    session->attempt = request.attempt();
    session->resumed = true;
    bool refused = !session->refused.empty() && !mutant("serve_before_refusals_are_heard");
    session->unheard = refused && (!known || session->unheard);
    session->contested = session->unheard;
    session->heard = state_.env.now();
    bind(id, std::move(connection));
    LogEvent(state_.env.log(), LogLevel::kInfo, "session resumed")
        .with("session", id)
        .with("held", request.held_size())
        .with("refused", reply.refused_size());
    state_.sessions_changed.pulse();
    // Files it had open when they lost their last name, and has no longer.
    KDFS_CO_TRY(co_await meta_.free_orphans(std::move(before)));
    co_return reply;
}

Status SessionService::may_resume(SessionId id) {
    Session* session = state_.sessions.find(id);
    if (session == nullptr || session->dead || session->doomed) {
        return Error(Errc::kFenced,
                     "session " + std::to_string(id.value) +
                         " has ended: its lease ran out; open a new session");
    }
    return {};
}

Task<Status> SessionService::take_claims(const pb::OpenSessionRequest& request) {
    for (const pb::HeldLease& claim : request.held()) {
        if (claim.mode() == pb::LEASE_EXCLUSIVE || (!claim.has_size() && !claim.has_mtime())) {
            continue;
        }
        DirtyState dirty;
        dirty.ino = InodeId(claim.ino());
        dirty.cut = claim.cut();
        dirty.change = claim.change();
        if (claim.has_size()) {
            dirty.size_bytes = claim.size();
        }
        if (claim.has_mtime()) {
            dirty.mtime = claim.mtime();
            dirty.exclusive = true;
        }
        Status taken = co_await take_dirty(dirty);
        if (!taken.ok() && taken.error().code != Errc::kStaleHandle &&
            taken.error().code != Errc::kInvalidArgument) {
            co_return taken;
        }
    }
    co_return Status();
}

Task<Status> SessionService::take_dirty(DirtyState dirty) {
    while (true) {
        KvBatch batch;
        Result<pb::Attr> taken =
            state_.space.take_dirty(dirty, state_.env.wall_clock().now(), batch);
        if (taken.ok()) {
            if (!batch.empty()) {
                KDFS_CO_TRY(state_.log.append(batch));
            }
            co_return Status();
        }
        if (taken.error().code != Errc::kWouldBlock) {
            co_return std::move(taken).error();
        }
        KDFS_CO_TRY(co_await load_missing(state_));
    }
}

std::vector<uint64_t> SessionService::reconcile(SessionId id,
                                                bool known,
                                                const pb::OpenSessionRequest& request) {
    std::map<uint64_t, pb::HeldLease> claims;
    for (const pb::HeldLease& claim : request.held()) {
        claims[claim.ino()] = claim;
    }
    if (known) {
        for (InodeId ino : state_.leases->inodes(id)) {
            if (!claims.contains(ino.value)) {
                claims[ino.value].set_ino(ino.value);
            }
        }
    }
    std::vector<uint64_t> refused;
    for (const auto& [ino, claim] : claims) {
        bool kept = known ? state_.leases->reaffirm(id, claim) : state_.leases->restore(id, claim);
        if (!kept) {
            refused.push_back(ino);
        }
    }
    return refused;
}

void SessionService::bind(SessionId id, std::shared_ptr<RpcConnection> connection) {
    Session* session = state_.sessions.find(id);
    if (session == nullptr || !connection->open()) {
        return;
    }
    session->connection = connection->id();
    state_.connections[id] = std::move(connection);
}

void SessionService::disconnected(uint64_t connection) {
    for (SessionId id : state_.sessions.disconnect(connection)) {
        state_.connections.erase(id);
    }
    state_.sessions_changed.pulse();
}

Task<Result<RpcReply>> SessionService::renew(RpcRequest rpc) {
    KDFS_CO_TRY_ASSIGN(auto request, decode<pb::RenewRequest>(rpc.body));
    SessionId id(request.session());
    KDFS_CO_TRY_ASSIGN(Session * session, state_.use_session(id));
    if (session->connection == 0) {
        bind(id, rpc.connection);
        state_.sessions_changed.pulse();
    }
    pb::RenewReply reply;
    std::shared_ptr<const ClusterMap> map = state_.manager.map();
    if (request.map_epoch() < map->epoch().value) {
        *reply.mutable_map() = map->proto();
    }
    co_return RpcReply(kdfs::encode(reply));
}

Task<Result<RpcReply>> SessionService::close(RpcRequest rpc) {
    KDFS_CO_TRY_ASSIGN(auto request, decode<pb::CloseSessionRequest>(rpc.body));
    SessionId id(request.session());
    Session* session = state_.sessions.find(id);
    pb::CloseSessionReply reply;
    if (session == nullptr || session->dead) {
        // Closed before, and the answer was lost.
        co_return RpcReply(kdfs::encode(reply));
    }
    session->dead = true;
    KDFS_CO_TRY(co_await meta_.drop_session(id));
    KDFS_CO_TRY(co_await erase(id));
    LogEvent(state_.env.log(), LogLevel::kInfo, "session closed").with("session", id);
    co_return RpcReply(kdfs::encode(reply));
}

Task<Result<RpcReply>> SessionService::end(RpcRequest rpc) {
    KDFS_CO_TRY_ASSIGN(auto request, decode<pb::EndSessionRequest>(rpc.body));
    if (request.name().empty()) {
        co_return Error(Errc::kInvalidArgument, "EndSession: the name of the session is missing");
    }
    std::vector<SessionId> ended = state_.sessions.take_named(request.name());
    for (SessionId id : ended) {
        scope_.spawn(expire(id, state_.env.now()));
    }
    pb::EndSessionReply reply;
    reply.set_ended(static_cast<uint32_t>(ended.size()));
    co_return RpcReply(kdfs::encode(reply));
}

Task<Status> SessionService::erase(SessionId id) {
    KvBatch batch;
    batch.erase(Sessions::key(id));
    Namespace::forget_session(id, batch);
    KDFS_CO_TRY_ASSIGN(uint64_t place, state_.log.append(batch));
    state_.sessions.remove(id);
    state_.connections.erase(id);
    state_.sessions_changed.pulse();
    co_return co_await state_.log.committed(place);
}

Task<void> SessionService::look_for_expired() {
    Duration pause = state_.sessions.lease() / kLooksPerLease;
    TimePoint next = state_.env.now();
    while (!state_.stopping) {
        // This process did not run (a starved or frozen machine): what its clients sent meanwhile
        // is still to be read.
        TimePoint now = state_.env.now();
        if (now > next + pause) {
            state_.sessions.excuse(now - next, now);
        }
        for (SessionId id : state_.sessions.take_expired(now)) {
            scope_.spawn(expire(id, state_.sessions.lease_end(*state_.sessions.find(id))));
        }
        if (!orphans_swept_ && !state_.sessions.in_grace()) {
            orphans_swept_ = true;
            scope_.spawn(sweep_orphans());
        }
        next = now + pause;
        co_await stop_.wait_until(next);
    }
}

// Sessions of an earlier life that did not come back had files open that nobody remembers.
Task<void> SessionService::sweep_orphans() {
    InodeId after;
    while (!state_.stopping) {
        auto orphans = state_.space.orphans(after, kOrphansAtOnce);
        if (!orphans.ok() && orphans.error().code == Errc::kWouldBlock) {
            Status loaded = co_await load_missing(state_);
            if (loaded.ok()) {
                continue;
            }
            orphans = loaded.error();
        }
        Status freed;
        if (!orphans.ok()) {
            freed = orphans.error();
        } else if (!orphans->empty()) {
            after = orphans->back();
            freed = co_await meta_.free_orphans(std::move(*orphans));
        } else {
            co_return;
        }
        if (!freed.ok()) {
            LogEvent(state_.env.log(), LogLevel::kError, "files without a name not freed")
                .with("cause", freed.error().to_string())
                .with("next", "they are freed at the next start");
            co_return;
        }
    }
}

Task<void> SessionService::expire(SessionId id, TimePoint lease_end) {
    Session* session = state_.sessions.find(id);
    LogEvent(state_.env.log(), LogLevel::kWarn, "session ended: its client did not answer")
        .with("session", id)
        .with("name", session->name)
        .with("leases", state_.leases->lease_count(id));
    // What a session that never came back to this life of the server was writing to is not known.
    bool known = session->resumed;
    state_.sessions_changed.pulse();
    SessionId floor = state_.sessions.floor(SessionId(next_session_));
    Status fenced = co_await state_.manager.fence(id, floor);
    if (!fenced.ok()) {
        co_return;  // Stopping, or the journal failed: the next life ends it.
    }
    state_.env.fault_point("mds.session.after_fence");
    Status recovered;
    if (!mutant("skip_size_recovery")) {
        recovered = co_await recover_sizes(id);
    }
    if (state_.stopping) {
        co_return;
    }
    if (!recovered.ok()) {
        LogEvent(state_.env.log(), LogLevel::kWarn, "sizes of files of an ended session not found")
            .with("session", id)
            .with("cause", recovered.error().to_string());
    }
    // Of a session that was ended while it renews its lease nobody knows whether its client has
    // heard of it: until the lease is over it may go by what it caches.
    while (!state_.stopping && state_.env.now() < lease_end && !mutant("drop_before_lease_end")) {
        co_await stop_.wait_until(lease_end);
    }
    if (state_.stopping) {
        co_return;
    }
    state_.env.fault_point("mds.session.before_drop");
    Status dropped;
    if (!recovered.ok() || !known) {
        dropped = co_await forget_ends();
    }
    if (dropped.ok()) {
        dropped = co_await meta_.drop_session(id);
    }
    // A client that is frozen keeps its connection. A recall that it did not answer has nobody left
    // to wait for.
    if (auto connection = state_.connection_of(id)) {
        connection->close(Error(Errc::kUnreachable, "the session of this connection ended"));
    }
    if (dropped.ok()) {
        dropped = co_await erase(id);
    }
    if (!dropped.ok()) {
        LogEvent(state_.env.log(), LogLevel::kError, "ended session could not be removed")
            .with("session", id)
            .with("cause", dropped.error().to_string());
    }
}

Task<Status> SessionService::forget_ends() {
    while (true) {
        KvBatch batch;
        Status forgotten = state_.space.forget_ends(batch);
        if (forgotten.ok()) {
            KDFS_CO_TRY(state_.log.append(batch));
            co_return Status();
        }
        if (forgotten.error().code != Errc::kWouldBlock) {
            co_return forgotten;
        }
        KDFS_CO_TRY(co_await load_missing(state_));
    }
}

Task<Status> SessionService::recover_sizes(SessionId id) {
    std::vector<InodeId> inodes = state_.leases->written(id);
    Status first;
    for (size_t begin = 0; begin < inodes.size() && !state_.stopping; begin += kRecoveriesAtOnce) {
        std::vector<Task<Status>> tasks;
        size_t end = std::min(inodes.size(), begin + kRecoveriesAtOnce);
        for (size_t i = begin; i < end; ++i) {
            tasks.push_back(recover_size(inodes[i]));
        }
        std::vector<Status> results = co_await when_all(parts_, std::move(tasks));
        for (Status& result : results) {
            if (first.ok() && !result.ok()) {
                first = std::move(result);
            }
        }
    }
    co_return first;
}

Task<Status> SessionService::recover_size(InodeId ino) {
    pb::MetaRequest request;
    request.mutable_getattr()->set_ino(ino.value);
    OpContext context;
    uint64_t size = 0;
    uint64_t cut = 0;
    bool measured = false;
    TimePoint deadline = state_.env.now() + kRecoverFor;
    while (true) {
        // Chunks that a cut has not reached yet would count for the size it set. A cut that begins
        // later has a higher Inode::cut, and what is measured here is outdated.
        if (!measured && trimmer_.busy(ino)) {
            KDFS_CO_TRY(co_await trimmer_.wait_until(ino, deadline));
            continue;
        }
        KvBatch batch;
        context.now = state_.env.wall_clock().now();
        Result<pb::MetaReply> reply = state_.space.apply(request, context, batch);
        if (reply.ok() && measured) {
            DirtyState dirty;
            dirty.ino = ino;
            dirty.size_bytes = size;
            dirty.cut = cut;
            Result<pb::Attr> taken = state_.space.take_dirty(dirty, context.now, batch);
            if (taken.ok()) {
                KDFS_CO_TRY(state_.log.append(batch));
                co_return Status();
            }
            reply = std::move(taken).error();
        }
        if (!reply.ok()) {
            if (reply.error().code == Errc::kStaleHandle) {
                co_return Status();
            }
            if (reply.error().code != Errc::kWouldBlock) {
                co_return std::move(reply).error();
            }
            KDFS_CO_TRY(co_await load_missing(state_));
            continue;
        }
        if (!S_ISREG(reply->attr().mode())) {
            co_return Status();
        }
        cut = reply->attr().cut();
        KDFS_CO_TRY_ASSIGN(size, co_await end_of_data(reply->attr(), deadline));
        measured = true;
    }
}

Task<Result<uint64_t>> SessionService::end_of_data(pb::Attr attr, TimePoint deadline) {
    std::shared_ptr<const ClusterMap> map = state_.manager.map();
    const pb::ChainTable* table = map->table(attr.layout().table());
    if (table == nullptr) {
        co_return Error(
            Errc::kCorrupt,
            "inode " + std::to_string(attr.ino()) + " refers to an unknown chain table");
    }
    DataId data(attr.data());
    uint64_t piece = piece_bytes(attr.layout());
    std::vector<Task<Result<uint64_t>>> tasks;
    for (ChainId chain : chains_of_file(attr.layout(), *table, kFileBytesMax)) {
        tasks.push_back(state_.storage->data_end(chain, data, piece, deadline));
    }
    std::vector<Result<uint64_t>> ends = co_await when_all(parts_, std::move(tasks));
    uint64_t end = 0;
    for (Result<uint64_t>& one : ends) {
        if (!one.ok()) {
            co_return std::move(one).error();
        }
        end = std::max(end, *one);
    }
    co_return end;
}

}  // namespace kdfs::mds
