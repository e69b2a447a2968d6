#include "mds/server.h"

#include "kdfs/base/codec.h"
#include "kdfs/base/mutant.h"
#include "kdfs/kv/kv_load.h"
#include "kdfs/proto/wire.h"
#include "mds/layout_choice.h"
#include "mds/schema.h"
#include "mds/status.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace kdfs::mds {
namespace {

// Ids that a power cut may have taken back were given out within one sync interval; a new life
// skips more than that could be.
constexpr uint64_t kIdsSkippedPerLife = uint64_t{1} << 20;

// Bounds of a page of kScanMeta.
constexpr uint64_t kScanEntriesMax = 4096;
constexpr uint64_t kScanBytesMax = 1 * MiB;

std::string life_key() { return std::string(1, static_cast<char>(Table::kManager)) + "life"; }

}  // namespace

Server::Server(Env& env, KvStore& store, Options options)
    : state_(env, store, options),
      recaller_(state_),
      trimmer_(state_),
      gc_(state_),
      meta_(state_, recaller_, trimmer_, gc_),
      sessions_(state_, meta_, trimmer_),
      rpc_(env, [this](RpcRequest request) { return handle(std::move(request)); }) {
    recaller_.set_take([this](SessionId session, pb::ReleaseOne item) {
        return meta_.release_one(session, std::move(item));
    });
    state_.manager.on_publish([this](std::shared_ptr<const ClusterMap> map) { push_map(*map); });
    RpcServer::Hooks hooks;
    hooks.on_close = [this](std::shared_ptr<RpcConnection> connection) {
        disconnected(connection->id());
    };
    rpc_.set_hooks(std::move(hooks));
}

Server::~Server() = default;

Task<Status> Server::start() {
    KDFS_CO_TRY_ASSIGN(uint64_t life, co_await begin_life());
    state_.begin_life(life);
    KDFS_CO_TRY(co_await state_.manager.start());
    KDFS_CO_TRY(co_await format_namespace());
    KDFS_CO_TRY_ASSIGN(std::optional<std::string> ends,
                       co_await get_loaded(state_.store, Namespace::forgotten_ends_key()));
    if (ends) {
        KDFS_CO_TRY(state_.space.restore_ends(*ends));
    }
    KDFS_CO_TRY(co_await state_.log.durable());
    KDFS_CO_TRY(co_await sessions_.start());
    KDFS_CO_TRY(co_await trimmer_.start());
    KDFS_CO_TRY(co_await rpc_.listen(state_.options.address));
    gc_.start();
    sessions_.watch();
    LogEvent(state_.env.log(), LogLevel::kInfo, "metadata server serves")
        .with("address", rpc_.address())
        .with("cluster", cluster_id())
        .with("sessions_awaited", state_.sessions.all().size());
    co_return Status();
}

Task<Status> Server::stop() {
    state_.stopping = true;
    state_.sessions_changed.set();
    if (state_.storage) {
        co_await state_.storage->stop();
    }
    co_await state_.manager.stop();
    co_await rpc_.stop();
    co_await recaller_.stop();
    co_await sessions_.stop();
    co_await trimmer_.stop();
    co_await gc_.stop();
    state_.connections.clear();
    co_return co_await state_.log.stop();
}

std::string Server::cluster_id() const { return state_.manager.map()->proto().cluster_id(); }

bool Server::session_over(SessionId session) {
    const Session* found = state_.sessions.find(session);
    return found == nullptr || found->dead;
}

Server::Held Server::held() const {
    return {state_.sessions.all().size(), state_.leases ? state_.leases->held() : 0};
}

Task<Result<uint64_t>> Server::begin_life() {
    KDFS_CO_TRY_ASSIGN(std::optional<std::string> stored,
                       co_await get_loaded(state_.store, life_key()));
    uint64_t life = 1;
    if (stored) {
        Reader in(*stored);
        uint8_t format = in.u8();
        life = in.u64() + 1;
        if (format > kFormatVersion) {
            co_return Error(Errc::kWrongVersion,
                            "the state directory has format " + std::to_string(format) +
                                ", this program knows up to " + std::to_string(kFormatVersion) +
                                ": install the newer kdfs that wrote it");
        }
        if (!in.done()) {
            co_return Error(Errc::kCorrupt, "the state directory's format record is damaged");
        }
    }
    std::string record;
    Writer out(record);
    out.u8(kFormatVersion);
    out.u64(life);
    KvBatch batch;
    batch.put(life_key(), std::move(record));
    KDFS_CO_TRY(state_.log.append(batch));
    co_return life;
}

Task<Status> Server::format_namespace() {
    while (true) {
        KvBatch batch;
        Status made =
            state_.space.format(state_.env.wall_clock().now(), state_.options.root_policy, batch);
        if (!made.ok() && made.error().code == Errc::kWouldBlock) {
            KDFS_CO_TRY(co_await load_missing(state_));
            continue;
        }
        KDFS_CO_TRY(std::move(made));
        if (!batch.empty()) {
            KDFS_CO_TRY(state_.log.append(batch));
            co_return Status();
        }
        break;
    }
    KDFS_CO_TRY_ASSIGN(std::optional<std::string> stored,
                       co_await get_loaded(state_.store, counters_key()));
    if (!stored) {
        co_return Error(Errc::kCorrupt,
                        "the namespace has a root but no counters: run `kdfs fsck`");
    }
    KDFS_CO_TRY_ASSIGN(Counters counters, decode_counters(counters_key(), *stored));
    counters.next_id += mutant("reuse_ids") ? 0 : kIdsSkippedPerLife;
    KvBatch batch;
    batch.put(counters_key(), mds::encode(counters));
    KDFS_CO_TRY(state_.log.append(batch));
    co_return Status();
}

Task<Result<RpcReply>> Server::handle(RpcRequest request) {
    switch (request.type) {
        case MessageType::kMeta:
            return meta_.handle(std::move(request));
        case MessageType::kRenew:
            return sessions_.renew(std::move(request));
        case MessageType::kOpenSession:
            return sessions_.open(std::move(request));
        case MessageType::kCloseSession:
            return sessions_.close(std::move(request));
        case MessageType::kHeartbeat:
            return heartbeat(std::move(request));
        case MessageType::kSyncDone:
            return sync_done(std::move(request));
        case MessageType::kGetMap:
            return get_map(std::move(request));
        case MessageType::kScrub:
            return scrub(std::move(request));
        case MessageType::kEndSession:
            return sessions_.end(std::move(request));
        case MessageType::kScanMeta:
            return scan(std::move(request));
        default:
            return status(std::move(request));
    }
}

Task<Result<RpcReply>> Server::heartbeat(RpcRequest request) {
    KDFS_CO_TRY_ASSIGN(auto body, decode<pb::HeartbeatRequest>(request.body));
    uint64_t connection = request.connection->id();
    auto reply = co_await state_.manager.heartbeat(std::move(body), connection);
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return RpcReply(kdfs::encode(*reply));
}

Task<Result<RpcReply>> Server::sync_done(RpcRequest request) {
    KDFS_CO_TRY_ASSIGN(auto body, decode<pb::SyncDoneRequest>(request.body));
    auto reply = co_await state_.manager.sync_done(std::move(body));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return RpcReply(kdfs::encode(*reply));
}

Task<Result<RpcReply>> Server::get_map(RpcRequest request) {
    KDFS_CO_TRY_ASSIGN(auto body, decode<pb::GetMapRequest>(request.body));
    co_return RpcReply(kdfs::encode(state_.manager.get_map(body)));
}

Task<Result<RpcReply>> Server::scrub(RpcRequest request) {
    KDFS_CO_TRY_ASSIGN(auto body, decode<pb::ScrubRequest>(request.body));
    auto reply = co_await state_.manager.scrub(std::move(body));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return RpcReply(kdfs::encode(*reply));
}

Task<Result<RpcReply>> Server::status(RpcRequest request) {
    if (request.type != MessageType::kStatus) {
        co_return Error(Errc::kUnimplemented,
                        "the metadata server does not take messages of type " +
                            std::to_string(static_cast<uint16_t>(request.type)));
    }
    Result<Counts> counts = state_.space.counts();
    while (!counts.ok() && counts.error().code == Errc::kWouldBlock) {
        KDFS_CO_TRY(co_await load_missing(state_));
        counts = state_.space.counts();
    }
    if (!counts.ok()) {
        co_return std::move(counts).error();
    }
    Result<pb::Policy> policy = state_.space.root_policy();
    while (!policy.ok() && policy.error().code == Errc::kWouldBlock) {
        KDFS_CO_TRY(co_await load_missing(state_));
        policy = state_.space.root_policy();
    }
    if (!policy.ok()) {
        co_return std::move(policy).error();
    }
    pb::StatusReply reply = make_status(state_, *counts);
    reply.set_replicas(replicas_of(*state_.manager.map(), *policy));
    co_return RpcReply(kdfs::encode(reply));
}

Task<Result<RpcReply>> Server::scan(RpcRequest request) {
    KDFS_CO_TRY_ASSIGN(auto body, decode<pb::ScanMetaRequest>(request.body));
    std::string first = body.after();
    if (!first.empty()) {
        first.push_back('\0');
    }
    uint64_t most = std::clamp<uint64_t>(body.entries_max(), 1, kScanEntriesMax);
    auto found = state_.store.scan(first, "", most);
    while (!found.ok() && found.error().code == Errc::kWouldBlock) {
        KDFS_CO_TRY(co_await state_.store.load_range(first, "", most));
        found = state_.store.scan(first, "", most);
    }
    if (!found.ok()) {
        co_return std::move(found).error();
    }
    pb::ScanMetaReply reply;
    reply.set_changes(state_.log.appended());
    reply.set_more(found->size() == most);
    uint64_t bytes = 0;
    for (KvEntry& entry : *found) {
        bytes += entry.key.size() + entry.value.size();
        if (bytes > kScanBytesMax && reply.records_size() > 0) {
            reply.set_more(true);
            break;
        }
        pb::MetaRecord* record = reply.add_records();
        record->set_key(std::move(entry.key));
        record->set_value(std::move(entry.value));
    }
    co_return RpcReply(kdfs::encode(reply));
}

void Server::push_map(const ClusterMap& map) {
    pb::MapUpdate update;
    *update.mutable_map() = map.proto();
    Buffer body = kdfs::encode(update);
    for (const auto& [id, connection] : rpc_.connections()) {
        connection->notify(MessageType::kMapUpdate, body);
    }
}

void Server::disconnected(uint64_t connection) {
    sessions_.disconnected(connection);
    state_.manager.disconnected(connection);
}

}  // namespace kdfs::mds
