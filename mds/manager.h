#pragma once

#include "kdfs/base/result.h"
#include "kdfs/kv/kv_store.h"
#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/cluster_map.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/function.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/task.h"
#include "mds/membership.h"
#include "mds/meta_log.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>

namespace kdfs::mds {

// The cluster manager: owns the map. A new map is on stable storage before anybody hears of it, so
// no crash takes an epoch back. map() is the newest published one.
//
// Each map goes whole to everybody, so members that come into sync are collected for kCollect and
// published together; after a restart there is one for each chain.
class Manager {
public:
    static constexpr Duration kCollect = std::chrono::milliseconds(10);

    struct Options {
        Membership::Options membership;
        // Of a new cluster; empty: one is drawn. A store of another cluster is refused with it.
        std::string cluster_id;
    };
    using Publish = Function<void(std::shared_ptr<const ClusterMap>)>;

    // All outlive this.
    Manager(Env& env, KvStore& store, MetaLog& log, Options options);

    // Loads the map, or makes the first. Everything else comes after it.
    Task<Status> start();
    // Ends waiting calls with kCancelled.
    Task<void> stop();
    // Called with each new map.
    void on_publish(Publish publish) { publish_ = std::move(publish); }

    Task<Result<pb::HeartbeatReply>> heartbeat(pb::HeartbeatRequest request, uint64_t connection);
    Task<Result<pb::SyncDoneReply>> sync_done(pb::SyncDoneRequest request);
    // Answers once the order is in the published map.
    Task<Result<pb::ScrubReply>> scrub(pb::ScrubRequest request);
    pb::GetMapReply get_map(const pb::GetMapRequest& request) const;
    void disconnected(uint64_t connection);

    // Completes when every storage daemon that is online refuses the session, and all sessions
    // below `floor`.
    Task<Status> fence(SessionId session, SessionId floor);

    std::shared_ptr<const ClusterMap> map() const { return published_; }
    const Membership& membership() const { return *membership_; }
    // Set anew with every published map: wait on it to try again.
    Event& changed() { return changed_; }

private:
    Status restore(const std::optional<std::string>& stored,
                   const std::optional<std::string>& confirmed);
    // Until a map of at least that epoch is out.
    Task<Status> publish(uint64_t epoch);
    Task<Status> publish() { return publish(membership_->map().epoch()); }
    // publish(), with whatever else changes within kCollect.
    Task<Status> publish_collected();
    Task<void> watch();
    Status persist();

    Env& env_;
    KvStore& store_;
    MetaLog& log_;
    Options options_;
    Publish publish_;
    std::optional<Membership> membership_;
    std::shared_ptr<const ClusterMap> published_;
    size_t confirmed_stored_ = 0;
    uint64_t came_into_sync_ = 0;  // chain members, since the last map
    bool publishing_ = false;
    bool stopping_ = false;
    Event changed_;   // pulsed with each published map
    Event progress_;  // pulsed with each heartbeat
    Event watch_wake_;
    TaskScope scope_;
};

}  // namespace kdfs::mds
