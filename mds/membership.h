#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/placement.h"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace kdfs::mds {

// Decides who is in the cluster: turns heartbeats and their absence into new cluster maps. Pure:
// time comes in as an argument, and nothing is told to anyone here.
//
// A daemon stops serving by itself half a lease after it sent the last heartbeat that was answered.
// A node is taken for dead a whole lease after its last heartbeat, or half a lease (and a
// sixteenth, for clocks that drift) after it if its connection is gone too. A daemon that starts
// draws a new incarnation: its targets go offline and come up again in one step, so it must resync
// whatever others went on writing.
//
// Nodes that fail together go offline in one step, so that each is as good as the last to serve:
// one that started anew waits until every node that serves a chain with it has reported since, or
// started anew too, or is taken for dead. Who is to be taken for dead waits, half a lease at most,
// for those whose connection is gone too, or that are silent for half a lease.
//
// The first chains are made once `expected_nodes` nodes are here; nodes that come later are in the
// map but in no chain yet.
//
// Bounds: kNodesMax nodes, kTargetsMax targets, kNameBytesMax per name or address, and a map of
// kMapBytesMax: whoever would make it larger is not let in, since the map goes out in one frame.
// kTargetsMax is what that allows with the chains that make_placement() makes.
class Membership {
public:
    static constexpr int kNodesMax = 512;
    static constexpr int kTargetsMax = 400;
    static constexpr int kTargetsPerNodeMax = 256;
    static constexpr size_t kNameBytesMax = 255;
    // Of each target's report.
    static constexpr int kDamagedNamedMax = 8;
    // Of a scrub, per target and second.
    static constexpr uint64_t kScrubRateMin = 64 * KiB;
    static constexpr uint64_t kScrubRateMax = 64 * GiB;
    // Room for fenced sessions and for what an answer has beside the map.
    static constexpr size_t kMapBytesMax = kBodyBytesMax - 256 * KiB;
    static constexpr Duration kNodeLeaseDefault = std::chrono::seconds(4);

    struct Options {
        Duration node_lease = kNodeLeaseDefault;
        uint64_t expected_nodes = 1;
        uint64_t chains_per_target = kChainsPerTarget;
    };

    // `map` is the stored one. Every node that is online in it has a full lease from now.
    Membership(Options options, pb::ClusterMap map, TimePoint now);

    // Nodes that were seen with this cluster's id before: a daemon of theirs without one has lost
    // its directory.
    void set_confirmed(std::set<uint64_t> nodes) { confirmed_ = std::move(nodes); }
    const std::set<uint64_t>& confirmed() const { return confirmed_; }

    // True if the map changed. kWrongCluster, kInvalidArgument or kExists (a target of another
    // node) if the daemon cannot be let in; the message says what to do.
    Result<bool> heartbeat(const pb::HeartbeatRequest& request, uint64_t connection, TimePoint now);
    void disconnected(uint64_t connection);
    // Takes those for dead that must be. True if the map changed.
    bool tick(TimePoint now);
    // When tick() has something to do at the earliest.
    TimePoint next_tick() const;
    // True if the map changed. A report about an older state of the chain is kStaleMap.
    Result<bool> sync_done(const pb::SyncDoneRequest& request);
    // Refuses requests of the session from the next map on, and of all below `floor`. True if the
    // map changed.
    bool fence(SessionId session, SessionId floor);

    // Begins a scrub or changes the rate of the one that runs, or stops it. True if the map
    // changed. kInvalidArgument if the rate is out of bounds.
    Result<bool> scrub(const pb::ScrubRequest& request);

    const pb::ClusterMap& map() const { return map_; }
    // The smallest epoch by which an online storage daemon acts; the map's own if there is none.
    uint64_t oldest_epoch_in_use() const;
    // Of nodes that reported since the start, by target.
    const std::map<uint64_t, pb::TargetReport>& reports() const { return reports_; }
    uint64_t nodes_online() const;

private:
    struct Health {
        TimePoint heard{};
        uint64_t connection = 0;
        bool connected = true;
        uint64_t acts_by = 0;  // epoch
    };

    // A node that started anew and waits to be taken in.
    struct Restarted {
        pb::HeartbeatRequest request;  // the newest
        TimePoint since{};
    };

    // Of dead ones for doubtful ones.
    struct Wait {
        TimePoint until{};
        TimePoint look_again{};
    };

    Status check(const pb::HeartbeatRequest& request) const;
    Status check_targets(const pb::HeartbeatRequest& request) const;
    Status check_room(const pb::HeartbeatRequest& request) const;
    pb::Node* node(uint64_t id);
    const pb::Node* node(uint64_t id) const;
    bool has_restarted(const pb::HeartbeatRequest& request) const;
    bool same_boot(const pb::HeartbeatRequest& request) const;
    bool take(const pb::HeartbeatRequest& request);
    void note_restart(const pb::HeartbeatRequest& request, TimePoint now);
    bool take_restarts(std::set<uint64_t> down);
    std::set<uint64_t> silent_since(TimePoint since) const;
    std::set<uint64_t> doubtful(TimePoint now) const;
    bool serve_together(const std::set<uint64_t>& some, const std::set<uint64_t>& others) const;
    bool go_down(const std::set<uint64_t>& nodes);
    std::set<uint64_t> targets_of(const std::set<uint64_t>& nodes) const;
    bool update_node(const pb::HeartbeatRequest& request);
    bool add_targets(const pb::HeartbeatRequest& request);
    void note_losses(uint64_t target);
    bool apply_to_chains(uint64_t target, bool up);
    bool leave_syncing(uint64_t target);
    bool take_reports(const pb::HeartbeatRequest& request);
    bool make_chains();
    bool scrub_finished() const;
    TimePoint dead_at(const Health& health) const;
    bool raise_if(bool changed);

    Options options_;
    pb::ClusterMap map_;
    std::map<uint64_t, Health> health_;
    std::map<uint64_t, Restarted> restarted_;  // by node
    std::optional<Wait> wait_;
    std::map<uint64_t, pb::TargetReport> reports_;
    std::set<uint64_t> confirmed_;
};

}  // namespace kdfs::mds
