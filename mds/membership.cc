#include "mds/membership.h"

#include "kdfs/base/mutant.h"
#include "kdfs/proto/cluster_map.h"
#include "kdfs/proto/member_state.h"
#include "kdfs/proto/placement.h"
#include "kdfs/proto/text.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace kdfs::mds {
namespace {

std::string node_text(const pb::HeartbeatRequest& request) {
    return "storage node " + std::to_string(request.node()) + " (" + request.name() + ", " +
           request.address() + ")";
}

}  // namespace

Membership::Membership(Options options, pb::ClusterMap map, TimePoint now)
    : options_(options), map_(std::move(map)) {
    for (const pb::Node& n : map_.nodes()) {
        if (n.online()) {
            health_[n.id()].heard = now;
        }
    }
}

pb::Node* Membership::node(uint64_t id) {
    for (pb::Node& n : *map_.mutable_nodes()) {
        if (n.id() == id) {
            return &n;
        }
    }
    return nullptr;
}

const pb::Node* Membership::node(uint64_t id) const {
    auto found = std::find_if(map_.nodes().begin(), map_.nodes().end(), [id](const pb::Node& n) {
        return n.id() == id;
    });
    return found == map_.nodes().end() ? nullptr : &*found;
}

Status Membership::check(const pb::HeartbeatRequest& request) const {
    std::string who = node_text(request);
    if (!request.cluster_id().empty() && request.cluster_id() != map_.cluster_id()) {
        return Error(Errc::kWrongCluster,
                     who + " belongs to cluster " + request.cluster_id() + ", this is cluster " +
                         map_.cluster_id() + ": give the daemon the address of its own metadata " +
                         "server, or an empty directory");
    }
    if (request.cluster_id().empty() && confirmed_.contains(request.node())) {
        return Error(Errc::kWrongCluster,
                     who +
                         " is known here, but its daemon has an empty directory: start it with "
                         "the directory it had, or give it a new node id");
    }
    if (request.node() == 0 || request.incarnation() == 0 || request.address().empty() ||
        request.targets_size() > kTargetsPerNodeMax || request.name().size() > kNameBytesMax ||
        request.address().size() > kNameBytesMax || request.unix_address().size() > kNameBytesMax ||
        request.failure_domain().size() > kNameBytesMax) {
        return Error(Errc::kInvalidArgument,
                     who +
                         ": a heartbeat needs a node id, an incarnation, an address and at most " +
                         std::to_string(kTargetsPerNodeMax) + " targets, names up to 255 bytes");
    }
    KDFS_TRY(check_targets(request));
    return check_room(request);
}

Status Membership::check_targets(const pb::HeartbeatRequest& request) const {
    std::string who = node_text(request);
    std::set<uint64_t> seen;
    for (const pb::TargetReport& report : request.targets()) {
        if (report.target() == 0 || !seen.insert(report.target()).second) {
            return Error(Errc::kInvalidArgument, who + " reports target 0 or a target twice");
        }
        for (const pb::Target& t : map_.targets()) {
            if (t.id() == report.target() && t.node() != request.node()) {
                return Error(Errc::kExists,
                             who + " reports target " + std::to_string(t.id()) +
                                 ", which belongs to node " + std::to_string(t.node()) +
                                 ": two directories have the same id, was one copied?");
            }
        }
    }
    return {};
}

// Whether the map may grow by what the request brings.
Status Membership::check_room(const pb::HeartbeatRequest& request) const {
    const pb::Node* known = node(request.node());
    if (known == nullptr && map_.nodes_size() >= kNodesMax) {
        return Error(Errc::kOverloaded,
                     node_text(request) + ": the cluster has " + std::to_string(kNodesMax) +
                         " nodes already");
    }
    int added = 0;
    for (const pb::TargetReport& report : request.targets()) {
        bool there = std::any_of(map_.targets().begin(),
                                 map_.targets().end(),
                                 [&](const pb::Target& t) { return t.id() == report.target(); });
        added += there ? 0 : 1;
    }
    if (map_.targets_size() + added > kTargetsMax) {
        return Error(Errc::kOverloaded,
                     node_text(request) + ": with its targets the cluster would have more than " +
                         std::to_string(kTargetsMax) + ", which is the most there may be");
    }
    bool described = known != nullptr && known->name() == request.name() &&
                     known->address() == request.address() &&
                     known->unix_address() == request.unix_address() &&
                     known->failure_domain() == request.failure_domain();
    constexpr size_t kNumbersBytes = 64;
    size_t grows = request.name().size() + request.address().size() +
                   request.unix_address().size() + request.failure_domain().size() + kNumbersBytes;
    if ((!described || added != 0) && map_.ByteSizeLong() + grows > kMapBytesMax) {
        return Error(Errc::kOverloaded,
                     node_text(request) + ": the cluster map is full; give nodes shorter names");
    }
    return {};
}

Result<bool> Membership::heartbeat(const pb::HeartbeatRequest& request,
                                   uint64_t connection,
                                   TimePoint now) {
    KDFS_TRY(check(request));
    Health& health = health_[request.node()];
    health.heard = now;
    health.connection = connection;
    health.connected = true;
    health.acts_by = request.map_epoch();
    if (!request.cluster_id().empty()) {
        confirmed_.insert(request.node());
    }
    bool changed = false;
    if (has_restarted(request)) {
        note_restart(request, now);
    } else {
        restarted_.erase(request.node());
        changed = take(request);
    }
    changed = take_restarts({}) || changed;
    changed = make_chains() || changed;
    return raise_if(changed);
}

bool Membership::has_restarted(const pb::HeartbeatRequest& request) const {
    const pb::Node* known = node(request.node());
    return known != nullptr && known->incarnation() != request.incarnation() &&
           !mutant("ignore_restart");
}

bool Membership::same_boot(const pb::HeartbeatRequest& request) const {
    const pb::Node* known = node(request.node());
    return known != nullptr && request.boot() != 0 && known->boot() == request.boot();
}

// Takes over what a heartbeat says. The targets of a daemon that started anew are down by now.
bool Membership::take(const pb::HeartbeatRequest& request) {
    const pb::Node* known = node(request.node());
    bool was_online = known != nullptr && known->online();
    bool restarted = has_restarted(request);
    bool lost_memory = restarted && !same_boot(request);
    bool changed = update_node(request);
    changed = add_targets(request) || changed;
    for (const pb::TargetReport& report : request.targets()) {
        if (restarted) {
            reports_.erase(report.target());
        }
        bool comes_up = (restarted || !was_online) && !report.failed();
        if (comes_up && lost_memory) {
            note_losses(report.target());
        }
        changed = (comes_up && apply_to_chains(report.target(), true)) || changed;
    }
    return take_reports(request) || changed;
}

void Membership::note_restart(const pb::HeartbeatRequest& request, TimePoint now) {
    auto [it, is_new] = restarted_.try_emplace(request.node());
    if (is_new || it->second.request.incarnation() != request.incarnation()) {
        it->second.since = now;
    }
    it->second.request = request;
}

// Takes down the nodes `down` and, in the same step, those that started anew and wait for nobody
// any more; the latter come up again.
bool Membership::take_restarts(std::set<uint64_t> down) {
    std::vector<pb::HeartbeatRequest> ready;
    for (const auto& [id, restarted] : restarted_) {
        // What others brought meanwhile may stand against it; its next heartbeat is told so.
        if (!serve_together({id}, silent_since(restarted.since)) && check(restarted.request).ok()) {
            ready.push_back(restarted.request);
        }
    }
    for (const pb::HeartbeatRequest& request : ready) {
        down.insert(request.node());
        restarted_.erase(request.node());
    }
    bool changed = go_down(down);
    // The first of those that served together serves, so who lost nothing comes first.
    std::stable_partition(ready.begin(), ready.end(), [this](const pb::HeartbeatRequest& one) {
        return same_boot(one);
    });
    for (const pb::HeartbeatRequest& request : ready) {
        changed = take(request) || changed;
    }
    return changed;
}

// Those of which nobody knows whether they still ran at that time.
std::set<uint64_t> Membership::silent_since(TimePoint since) const {
    std::set<uint64_t> out;
    for (const auto& [id, health] : health_) {
        if (health.heard < since && !restarted_.contains(id)) {
            out.insert(id);
        }
    }
    return out;
}

// Those that may be taken for dead soon, or are.
std::set<uint64_t> Membership::doubtful(TimePoint now) const {
    std::set<uint64_t> out;
    for (const auto& [id, health] : health_) {
        if (!health.connected || now >= health.heard + options_.node_lease / 2) {
            out.insert(id);
        }
    }
    return out;
}

// Whether a chain is served by one of `some` and by another one of `others`.
bool Membership::serve_together(const std::set<uint64_t>& some,
                                const std::set<uint64_t>& others) const {
    std::set<uint64_t> rest;
    std::set_difference(others.begin(),
                        others.end(),
                        some.begin(),
                        some.end(),
                        std::inserter(rest, rest.end()));
    if (rest.empty() || mutant("go_down_alone")) {
        return false;
    }
    std::set<uint64_t> ours = targets_of(some);
    std::set<uint64_t> theirs = targets_of(rest);
    auto served_by_one_of = [](const pb::Chain& chain, const std::set<uint64_t>& targets) {
        auto members = serving_members(chain);
        return std::any_of(members.begin(), members.end(), [&targets](TargetId target) {
            return targets.contains(target.value);
        });
    };
    return std::any_of(map_.chains().begin(), map_.chains().end(), [&](const pb::Chain& chain) {
        return served_by_one_of(chain, ours) && served_by_one_of(chain, theirs);
    });
}

std::set<uint64_t> Membership::targets_of(const std::set<uint64_t>& nodes) const {
    std::set<uint64_t> targets;
    for (const pb::Target& t : map_.targets()) {
        if (nodes.contains(t.node())) {
            targets.insert(t.id());
        }
    }
    return targets;
}

bool Membership::update_node(const pb::HeartbeatRequest& request) {
    pb::Node* n = node(request.node());
    if (n == nullptr) {
        n = map_.add_nodes();
        n->set_id(request.node());
    }
    pb::Node before = *n;
    n->set_name(request.name());
    n->set_address(request.address());
    n->set_unix_address(request.unix_address());
    n->set_failure_domain(request.failure_domain());
    n->set_incarnation(request.incarnation());
    n->set_boot(request.boot());
    n->set_online(true);
    return before.SerializeAsString() != n->SerializeAsString();
}

bool Membership::add_targets(const pb::HeartbeatRequest& request) {
    bool changed = false;
    for (const pb::TargetReport& report : request.targets()) {
        bool known = std::any_of(map_.targets().begin(),
                                 map_.targets().end(),
                                 [&](const pb::Target& t) { return t.id() == report.target(); });
        if (!known) {
            pb::Target* t = map_.add_targets();
            t->set_id(report.target());
            t->set_node(request.node());
            t->set_weight(1);
            changed = true;
        }
    }
    return changed;
}

// A target whose disk fails is gone until its daemon starts again.
bool Membership::take_reports(const pb::HeartbeatRequest& request) {
    bool changed = false;
    for (const pb::TargetReport& report : request.targets()) {
        if (report.failed()) {
            changed = apply_to_chains(report.target(), false) || changed;
        }
        // Its first report to this manager may follow ones of want of room to an earlier one, which
        // took it out of chains.
        auto known = reports_.find(report.target());
        bool was_full = known == reports_.end() || known->second.full();
        reports_[report.target()] = report;
        std::string cause = wire_text(report.failure(), kNameBytesMax);
        reports_[report.target()].set_failure(std::move(cause));
        auto& damaged = *reports_[report.target()].mutable_damaged();
        if (damaged.size() > kDamagedNamedMax) {
            damaged.DeleteSubrange(kDamagedNamedMax, damaged.size() - kDamagedNamedMax);
        }
        if (report.full()) {
            changed = leave_syncing(report.target()) || changed;
        } else if (was_full && !report.failed()) {
            changed = apply_to_chains(report.target(), true) || changed;
        }
    }
    return changed;
}

// A member without room for what it lacks takes no writes until it has room, so that the others
// need not refuse them.
bool Membership::leave_syncing(uint64_t target) {
    bool changed = false;
    for (pb::Chain& chain : *map_.mutable_chains()) {
        if (member_state(chain, TargetId(target)) == pb::MEMBER_SYNCING) {
            chain = apply_event(std::move(chain), TargetId(target), MemberEvent::kTargetDown);
            changed = true;
        }
    }
    return changed;
}

// All of them in one step.
bool Membership::go_down(const std::set<uint64_t>& nodes) {
    std::set<TargetId> targets;
    for (uint64_t target : targets_of(nodes)) {
        targets.insert(TargetId(target));
    }
    bool changed = false;
    for (pb::Chain& chain : *map_.mutable_chains()) {
        uint64_t version = chain.version();
        chain = apply_down(std::move(chain), targets);
        changed = changed || chain.version() != version;
    }
    return changed;
}

// What only this target had is what its machine had brought to its disk.
void Membership::note_losses(uint64_t target) {
    for (pb::Chain& chain : *map_.mutable_chains()) {
        if (member_state(chain, TargetId(target)) == pb::MEMBER_LAST_SERVING) {
            chain.set_losses(chain.losses() + 1);
        }
    }
}

bool Membership::apply_to_chains(uint64_t target, bool up) {
    bool changed = false;
    for (pb::Chain& chain : *map_.mutable_chains()) {
        if (member_state(chain, TargetId(target)) == pb::MEMBER_NONE) {
            continue;
        }
        uint64_t version = chain.version();
        chain = apply_event(std::move(chain),
                            TargetId(target),
                            up ? MemberEvent::kTargetUp : MemberEvent::kTargetDown);
        changed = changed || chain.version() != version;
    }
    return changed;
}

bool Membership::make_chains() {
    if (map_.chains_size() != 0 ||
        nodes_online() < std::max<uint64_t>(options_.expected_nodes, 1)) {
        return false;
    }
    Result<PlacementPlan> plan = make_placement(map_, 1, 1, options_.chains_per_target);
    if (!plan.ok()) {
        return false;  // No target yet.
    }
    for (pb::Chain& chain : plan->chains) {
        *map_.add_chains() = std::move(chain);
    }
    for (pb::ChainTable& table : plan->tables) {
        *map_.add_tables() = std::move(table);
    }
    // A disk that failed before there were chains.
    for (const auto& [target, report] : reports_) {
        if (report.failed()) {
            apply_to_chains(target, false);
        }
    }
    return true;
}

void Membership::disconnected(uint64_t connection) {
    for (auto& [id, health] : health_) {
        if (health.connection == connection) {
            health.connected = false;
        }
    }
}

TimePoint Membership::dead_at(const Health& health) const {
    Duration lease = options_.node_lease;
    return health.heard + (health.connected ? lease : lease / 2 + lease / 16);
}

bool Membership::tick(TimePoint now) {
    std::set<uint64_t> dead;
    TimePoint next = TimePoint::max();
    for (const auto& [id, health] : health_) {
        TimePoint ends = dead_at(health);
        if (now < ends) {
            next = std::min(next, ends);
        } else {
            dead.insert(id);
        }
    }
    if (dead.empty()) {
        wait_.reset();
        return false;
    }
    if (!wait_) {
        wait_ = Wait{.until = now + options_.node_lease / 2, .look_again = now};
    }
    if (now < wait_->until && serve_together(dead, doubtful(now))) {
        wait_->look_again = std::min(wait_->until, next);
        return false;
    }
    wait_.reset();
    bool changed = false;
    for (uint64_t id : dead) {
        if (pb::Node* n = node(id); n != nullptr && n->online()) {
            n->set_online(false);
            changed = true;
        }
        health_.erase(id);
        restarted_.erase(id);
    }
    changed = take_restarts(std::move(dead)) || changed;
    return raise_if(changed);
}

TimePoint Membership::next_tick() const {
    if (wait_) {
        return wait_->look_again;
    }
    TimePoint next = TimePoint::max();
    for (const auto& [id, health] : health_) {
        next = std::min(next, dead_at(health));
    }
    return next;
}

Result<bool> Membership::sync_done(const pb::SyncDoneRequest& request) {
    for (pb::Chain& chain : *map_.mutable_chains()) {
        if (chain.id() != request.chain()) {
            continue;
        }
        TargetId target(request.target());
        if (chain.version() != request.chain_version() && !mutant("take_old_sync_report")) {
            // The first answer was lost.
            if (member_state(chain, target) == pb::MEMBER_SERVING) {
                return false;
            }
            return Error(Errc::kStaleMap,
                         "chain " + std::to_string(chain.id()) + " is at version " +
                             std::to_string(chain.version()) + ", the report is about version " +
                             std::to_string(request.chain_version()));
        }
        chain = apply_event(std::move(chain), target, MemberEvent::kSyncDone);
        return raise_if(chain.version() != request.chain_version());
    }
    return Error(Errc::kNotFound,
                 "chain " + std::to_string(request.chain()) + " is not in the cluster map");
}

bool Membership::fence(SessionId session, SessionId floor) {
    std::set<uint64_t> fenced(map_.fenced_sessions().begin(), map_.fenced_sessions().end());
    bool changed = session.value >= map_.session_floor() && fenced.insert(session.value).second;
    if (!changed) {
        return false;
    }
    map_.set_session_floor(std::max(map_.session_floor(), floor.value));
    fenced.erase(fenced.begin(), fenced.lower_bound(map_.session_floor()));
    map_.mutable_fenced_sessions()->Assign(fenced.begin(), fenced.end());
    return raise_if(true);
}

// Whether every target of a chain is done with the order.
bool Membership::scrub_finished() const {
    std::set<uint64_t> members;
    for (const pb::Chain& chain : map_.chains()) {
        for (const pb::ChainMember& member : chain.members()) {
            members.insert(member.target());
        }
    }
    return std::all_of(members.begin(), members.end(), [&](uint64_t target) {
        auto report = reports_.find(target);
        return report != reports_.end() && report->second.scrub().finished() &&
               report->second.scrub().number() == map_.scrub().number();
    });
}

Result<bool> Membership::scrub(const pb::ScrubRequest& request) {
    uint64_t rate = request.bytes_per_second();
    if (request.run() && (rate < kScrubRateMin || rate > kScrubRateMax)) {
        return Error(Errc::kInvalidArgument,
                     "a scrub reads " + std::to_string(kScrubRateMin) + " to " +
                         std::to_string(kScrubRateMax) + " bytes per second of each target, not " +
                         std::to_string(rate));
    }
    pb::ScrubOrder& order = *map_.mutable_scrub();
    if (!request.run()) {
        bool running = order.running();
        order.set_running(false);
        return raise_if(running);
    }
    if (!order.running() || scrub_finished()) {
        order.set_number(order.number() + 1);
    } else if (order.bytes_per_second() == rate) {
        return false;
    }
    order.set_running(true);
    order.set_bytes_per_second(rate);
    return raise_if(true);
}

uint64_t Membership::oldest_epoch_in_use() const {
    uint64_t oldest = map_.epoch();
    for (const pb::Node& n : map_.nodes()) {
        if (n.online()) {
            auto health = health_.find(n.id());
            oldest = std::min(oldest, health == health_.end() ? 0 : health->second.acts_by);
        }
    }
    return oldest;
}

uint64_t Membership::nodes_online() const {
    return static_cast<uint64_t>(std::count_if(map_.nodes().begin(),
                                               map_.nodes().end(),
                                               [](const pb::Node& n) { return n.online(); }));
}

bool Membership::raise_if(bool changed) {
    if (changed) {
        map_.set_epoch(map_.epoch() + 1);
    }
    return changed;
}

}  // namespace kdfs::mds
