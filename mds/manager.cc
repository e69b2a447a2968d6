#include "mds/manager.h"

#include "kdfs/base/codec.h"
#include "kdfs/base/mutant.h"
#include "kdfs/kv/kv_load.h"
#include "mds/schema.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <string_view>
#include <utility>

namespace kdfs::mds {
namespace {

std::string manager_key(std::string_view name) {
    return std::string(1, static_cast<char>(Table::kManager)) + std::string(name);
}

// A version 4 UUID.
std::string draw_uuid(Random& random) {
    uint64_t a = (random.u64() & ~0xf000ULL) | 0x4000;
    uint64_t b = (random.u64() >> 2) | 0x8000000000000000ULL;
    char text[40];
    std::snprintf(text,
                  sizeof text,
                  "%08x-%04x-%04x-%04x-%012llx",
                  static_cast<unsigned>(a >> 32),
                  static_cast<unsigned>((a >> 16) & 0xffff),
                  static_cast<unsigned>(a & 0xffff),
                  static_cast<unsigned>(b >> 48),
                  static_cast<unsigned long long>(b & 0xffffffffffffULL));
    return text;
}

std::string encode_confirmed(const std::set<uint64_t>& nodes) {
    std::string out;
    Writer w(out);
    w.u8(kRecordFormat);
    for (uint64_t n : nodes) {
        w.u64(n);
    }
    return out;
}

Result<std::set<uint64_t>> decode_confirmed(std::string_view value) {
    Reader r(value);
    uint8_t format = r.u8();
    std::set<uint64_t> out;
    while (r.remaining() >= sizeof(uint64_t)) {
        out.insert(r.u64());
    }
    if (!r.done() || format != kRecordFormat) {
        return Error(Errc::kCorrupt,
                     "the record of the nodes that were seen with the cluster's id is damaged: "
                     "restore the state directory of the metadata server from a copy");
    }
    return out;
}

// The watcher looks at least this often.
constexpr Duration kIdle = std::chrono::minutes(1);

}  // namespace

Manager::Manager(Env& env, KvStore& store, MetaLog& log, Options options)
    : env_(env), store_(store), log_(log), options_(std::move(options)), scope_(env.scheduler()) {}

Task<Status> Manager::start() {
    KDFS_CO_TRY_ASSIGN(std::optional<std::string> map,
                       co_await get_loaded(store_, manager_key("map")));
    KDFS_CO_TRY_ASSIGN(std::optional<std::string> confirmed,
                       co_await get_loaded(store_, manager_key("confirmed")));
    KDFS_CO_TRY(restore(map, confirmed));
    KDFS_CO_TRY(persist());
    KDFS_CO_TRY(co_await log_.durable());
    KDFS_CO_TRY_ASSIGN(published_, ClusterMap::make(membership_->map()));
    scope_.spawn(watch());
    co_return Status();
}

Status Manager::restore(const std::optional<std::string>& stored,
                        const std::optional<std::string>& confirmed) {
    pb::ClusterMap map;
    if (stored) {
        std::string_view record(*stored);
        bool known = !record.empty() && record.front() == static_cast<char>(kRecordFormat);
        if (!known || !map.ParseFromArray(record.data() + 1, static_cast<int>(record.size() - 1))) {
            return Error(Errc::kCorrupt,
                         "the stored cluster map is damaged: restore the state directory of the "
                         "metadata server from a copy");
        }
        if (!options_.cluster_id.empty() && options_.cluster_id != map.cluster_id()) {
            return Error(Errc::kWrongCluster,
                         "the state directory belongs to cluster " + map.cluster_id() +
                             ", not to " + options_.cluster_id + ": name the right directory");
        }
    } else {
        map.set_epoch(1);
        map.set_cluster_id(options_.cluster_id.empty() ? draw_uuid(env_.random())
                                                       : options_.cluster_id);
        map.set_session_floor(1);
    }
    using std::chrono::duration_cast;
    using std::chrono::milliseconds;
    auto lease_ms = duration_cast<milliseconds>(options_.membership.node_lease).count();
    if (map.node_lease_ms() != static_cast<uint32_t>(lease_ms)) {
        map.set_node_lease_ms(static_cast<uint32_t>(lease_ms));
        map.set_epoch(map.epoch() + 1);
    }
    membership_.emplace(options_.membership, std::move(map), env_.now());
    if (confirmed) {
        KDFS_TRY_ASSIGN(std::set<uint64_t> nodes, decode_confirmed(*confirmed));
        membership_->set_confirmed(std::move(nodes));
        confirmed_stored_ = membership_->confirmed().size();
    }
    return {};
}

Status Manager::persist() {
    KvBatch batch;
    std::string record(1, static_cast<char>(kRecordFormat));
    record += membership_->map().SerializeAsString();
    batch.put(manager_key("map"), std::move(record));
    batch.put(manager_key("confirmed"), encode_confirmed(membership_->confirmed()));
    confirmed_stored_ = membership_->confirmed().size();
    KDFS_TRY(log_.append(batch));
    return {};
}

Task<void> Manager::stop() {
    stopping_ = true;
    watch_wake_.set();
    changed_.set();
    progress_.set();
    co_await scope_.close();
}

Task<Status> Manager::publish(uint64_t epoch) {
    while (published_->epoch().value < epoch) {
        if (publishing_) {
            co_await changed_.wait();
            if (stopping_) {
                co_return Error(Errc::kCancelled, "the cluster manager is stopping");
            }
            continue;
        }
        publishing_ = true;
        auto next = ClusterMap::make(membership_->map());
        KDFS_CHECK(next.ok());
        Status kept = persist();
        if (kept.ok() && !mutant("publish_before_durable")) {
            kept = co_await log_.durable();
        }
        env_.fault_point("mds.map.before_publish");
        publishing_ = false;
        if (!kept.ok()) {
            changed_.pulse();
            co_return kept;
        }
        published_ = std::move(*next);
        LogEvent(env_.log(), LogLevel::kInfo, "new cluster map")
            .with("epoch", published_->epoch())
            .with("nodes_online", membership_->nodes_online())
            .with("came_into_sync", std::exchange(came_into_sync_, 0))
            .with("fenced", published_->proto().fenced_sessions_size());
        if (publish_) {
            publish_(published_);
        }
        changed_.pulse();
    }
    co_return Status();
}

Task<Status> Manager::publish_collected() {
    uint64_t epoch = membership_->map().epoch();
    TimePoint until = env_.now() + kCollect;
    while (published_->epoch().value < epoch && env_.now() < until && !stopping_) {
        co_await changed_.wait_until(until);
    }
    co_return co_await publish(epoch);
}

Task<Result<pb::HeartbeatReply>> Manager::heartbeat(pb::HeartbeatRequest request,
                                                    uint64_t connection) {
    Result<bool> changed = membership_->heartbeat(request, connection, env_.now());
    if (!changed.ok()) {
        LogEvent(env_.log(), LogLevel::kWarn, "heartbeat refused")
            .with("node", request.node())
            .with("cause", changed.error().to_string());
        co_return std::move(changed).error();
    }
    watch_wake_.pulse();
    progress_.pulse();
    if (*changed) {
        KDFS_CO_TRY(co_await publish());
    } else if (membership_->confirmed().size() != confirmed_stored_) {
        KDFS_CO_TRY(persist());
        KDFS_CO_TRY(co_await log_.durable());
    }
    pb::HeartbeatReply reply;
    if (request.map_epoch() < published_->epoch().value) {
        *reply.mutable_map() = published_->proto();
    }
    co_return reply;
}

Task<Result<pb::SyncDoneReply>> Manager::sync_done(pb::SyncDoneRequest request) {
    KDFS_CO_TRY_ASSIGN(bool changed, membership_->sync_done(request));
    if (changed) {
        ++came_into_sync_;
        LogEvent(env_.log(), LogLevel::kDebug, "chain member is in sync again")
            .with("chain", request.chain())
            .with("target", request.target());
    }
    // Also unchanged: the answer says that the promotion is published.
    KDFS_CO_TRY(co_await publish_collected());
    co_return pb::SyncDoneReply();
}

Task<Result<pb::ScrubReply>> Manager::scrub(pb::ScrubRequest request) {
    KDFS_CO_TRY_ASSIGN(bool changed, membership_->scrub(request));
    pb::ScrubReply reply;
    *reply.mutable_order() = membership_->map().scrub();
    if (changed) {
        LogEvent(env_.log(), LogLevel::kInfo, request.run() ? "scrub ordered" : "scrub stopped")
            .with("number", reply.order().number())
            .with("bytes_per_second", reply.order().bytes_per_second());
    }
    KDFS_CO_TRY(co_await publish());
    co_return reply;
}

pb::GetMapReply Manager::get_map(const pb::GetMapRequest& request) const {
    pb::GetMapReply reply;
    if (request.newer_than() < published_->epoch().value) {
        *reply.mutable_map() = published_->proto();
    }
    return reply;
}

void Manager::disconnected(uint64_t connection) {
    membership_->disconnected(connection);
    watch_wake_.pulse();
}

Task<Status> Manager::fence(SessionId session, SessionId floor) {
    membership_->fence(session, floor);
    uint64_t epoch = membership_->map().epoch();
    KDFS_CO_TRY(co_await publish());
    while (membership_->oldest_epoch_in_use() < epoch && !stopping_ &&
           !mutant("fence_without_waiting")) {
        co_await progress_.wait();
    }
    if (stopping_) {
        co_return Error(Errc::kCancelled, "the cluster manager is stopping");
    }
    co_return Status();
}

Task<void> Manager::watch() {
    while (!stopping_) {
        co_await watch_wake_.wait_until(std::min(membership_->next_tick(), env_.now() + kIdle));
        if (stopping_ || !membership_->tick(env_.now())) {
            continue;
        }
        LogEvent(env_.log(), LogLevel::kWarn, "a storage node is taken for dead")
            .with("nodes_online", membership_->nodes_online());
        progress_.pulse();
        // A failure of the journal is logged there; no newer map goes out then.
        (void)co_await publish();
    }
}

}  // namespace kdfs::mds
