#include "storage/membership_client.h"

#include "kdfs/proto/text.h"
#include "kdfs/proto/wire.h"

#include <algorithm>
#include <utility>

namespace kdfs::storage {
namespace {

// What the manager keeps and shows of why a disk failed.
constexpr size_t kFailureBytesMax = 255;

bool lists(const pb::ClusterMap& map, NodeId node, uint64_t incarnation) {
    return std::any_of(map.nodes().begin(), map.nodes().end(), [&](const pb::Node& one) {
        return one.id() == node.value && one.incarnation() == incarnation;
    });
}

}  // namespace

MembershipClient::MembershipClient(Env& env,
                                   ClusterView& view,
                                   RpcChannel& manager,
                                   Replicator& replicator)
    : env_(env), view_(view), manager_(manager), replicator_(replicator), scope_(env.scheduler()) {}

void MembershipClient::start(NodeDescription self,
                             std::vector<ChunkStore*> stores,
                             Resync& resync,
                             Scrubber& scrubber) {
    self_ = std::move(self);
    stores_ = std::move(stores);
    resync_ = &resync;
    scrubber_ = &scrubber;
    scope_.spawn(run());
}

void MembershipClient::begin_stop() {
    stopping_ = true;
    view_.refresh().set();
}

Task<void> MembershipClient::stop() {
    begin_stop();
    co_await scope_.close();
}

Duration MembershipClient::lease() const {
    const auto& map = view_.map();
    return map && map->proto().node_lease_ms() != 0
               ? Duration(std::chrono::milliseconds(map->proto().node_lease_ms()))
               : kLeaseDefault;
}

Task<void> MembershipClient::run() {
    while (!stopping_) {
        view_.refresh().reset();
        TimePoint begun = env_.now();
        co_await beat();
        Duration interval = std::max(lease() / 6, kIntervalMin);
        if (replicator_.acted_epoch().value != view_.epoch().value) {
            // Changes of a fenced session are under way; say so when they are over.
            interval = kIntervalMin;
        } else if (reported_epoch_ < view_.epoch().value && answered_) {
            continue;
        }
        if (!stopping_) {
            co_await view_.refresh().wait_until(begun + interval);
            // Never more often than this, whoever asks.
            co_await sleep_until(env_.scheduler(), begun + kIntervalMin);
        }
    }
}

Task<pb::HeartbeatRequest> MembershipClient::compose() {
    pb::HeartbeatRequest request;
    request.set_node(self_.node.value);
    request.set_incarnation(view_.incarnation());
    request.set_name(self_.name);
    request.set_address(self_.address);
    request.set_unix_address(self_.unix_address);
    request.set_failure_domain(self_.failure_domain);
    request.set_cluster_id(self_.cluster_id);
    request.set_boot(self_.boot);
    for (ChunkStore* store : stores_) {
        StoreSpace space = co_await store->space();
        pb::TargetReport* report = request.add_targets();
        report->set_target(store->target().value);
        report->set_total_bytes(space.total_bytes);
        report->set_free_bytes(space.free_bytes);
        report->set_chunks(space.chunks);
        replicator_.describe(*report);
        scrubber_->describe(*report);
        if (store->failure()) {
            report->set_failed(true);
            report->set_failure(wire_text(store->failure()->detail, kFailureBytesMax));
        }
    }
    request.set_map_epoch(replicator_.acted_epoch().value);
    co_return request;
}

Task<void> MembershipClient::beat() {
    pb::HeartbeatRequest request = co_await compose();
    TimePoint sent = env_.now();
    RpcCall call(MessageType::kHeartbeat, encode(request), sent + lease() / 4);
    auto answer = co_await manager_.call(std::move(call));
    if (!answer.ok()) {
        note_answer(answer.error());
        co_return;
    }
    pb::HeartbeatReply reply;
    Status decoded = decode_into(reply, answer->body);
    note_answer(decoded);
    if (!decoded.ok()) {
        co_return;
    }
    reported_epoch_ = request.map_epoch();
    if (reply.has_map()) {
        take_map(std::move(*reply.mutable_map()));
    }
    view_.extend_lease(sent + lease() / 2);
}

void MembershipClient::note_answer(const Status& status) {
    if (status.ok() != answered_) {
        LogEvent(env_.log(),
                 status.ok() ? LogLevel::kInfo : LogLevel::kWarn,
                 status.ok() ? "the manager answers" : "the manager does not answer")
            .with("manager", manager_.address())
            .with("cause", status.ok() ? "" : status.error().to_string());
    }
    answered_ = status.ok();
    if (!status.ok() && status.error().code == Errc::kWrongCluster && hooks_.on_refused) {
        hooks_.on_refused(status.error());
    }
}

void MembershipClient::take_map(pb::ClusterMap map) {
    if (map.epoch() <= view_.epoch().value) {
        return;
    }
    // The manager may wait before it takes in a daemon that started anew; until then the map shows
    // the one of before.
    bool is_first = view_.map() == nullptr;
    if (is_first && !lists(map, self_.node, view_.incarnation())) {
        return;
    }
    if (!self_.cluster_id.empty() && map.cluster_id() != self_.cluster_id) {
        note_answer(Error(Errc::kWrongCluster,
                          "the manager at " + manager_.address() + " is of cluster " +
                              map.cluster_id() + ", this node's directories are of cluster " +
                              self_.cluster_id + "; start it with other directories"));
        return;
    }
    auto made = ClusterMap::make(std::move(map));
    if (!made.ok()) {
        note_answer(made.error());
        return;
    }
    replicator_.before_map(view_.map().get(), **made);
    view_.set_map(std::move(*made));
    if (self_.cluster_id.empty()) {
        self_.cluster_id = view_.map()->proto().cluster_id();
        if (hooks_.on_cluster) {
            hooks_.on_cluster(self_.cluster_id);
        }
    }
    resync_->map_changed();
    scrubber_->map_changed();
    // The manager waits to hear that this daemon acts by the map.
    view_.refresh().set();
}

Task<Result<RpcReply>> MembershipClient::on_push(RpcRequest request) {
    if (request.type != MessageType::kMapUpdate) {
        co_return Error(Errc::kUnimplemented, "the manager pushes maps only");
    }
    pb::MapUpdate update;
    KDFS_CO_TRY(decode_into(update, request.body));
    if (resync_ != nullptr && !stopping_) {
        take_map(std::move(*update.mutable_map()));
    }
    co_return RpcReply();
}

}  // namespace kdfs::storage
