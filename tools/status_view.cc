#include "tools/status_view.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstdio>

namespace kdfs::tools {

namespace {

constexpr uint64_t kLowSpacePercent = 5;
constexpr size_t kWarningsMax = 20;

// The command that starts what is not running, or how to do it by hand.
std::string start_again(const StatusContext& context, const std::string& program) {
    if (!context.state_dir.empty()) {
        return "kdfs up --dir " + context.state_dir;
    }
    return "start " + program + " there again; its log says why it stopped";
}

std::string node_name(const pb::ClusterMap& map, uint64_t node) {
    for (const pb::Node& candidate : map.nodes()) {
        if (candidate.id() == node) {
            return candidate.name();
        }
    }
    return "node " + std::to_string(node);
}

uint64_t node_of_target(const pb::ClusterMap& map, uint64_t target) {
    for (const pb::Target& candidate : map.targets()) {
        if (candidate.id() == target) {
            return candidate.node();
        }
    }
    return 0;
}

void count_chain(const pb::Chain& chain, ChainCounts& counts) {
    uint64_t serving = 0;
    bool syncing = false;
    for (const pb::ChainMember& member : chain.members()) {
        serving += member.state() == pb::MEMBER_SERVING ? 1 : 0;
        syncing = syncing || member.state() == pb::MEMBER_SYNCING;
    }
    ++counts.total;
    if (chain.replicas() == counts.copies_meant) {
        counts.copies_min = std::min(counts.copies_min, serving);
    }
    if (serving >= chain.replicas()) {
        ++counts.full;
    } else if (serving == 0 && chain.replicas() < counts.copies_meant) {
        ++counts.thin_down;
    } else if (serving == 0) {
        ++counts.down;
    } else if (syncing) {
        ++counts.syncing;
    } else {
        ++counts.reduced;
    }
}

void count_chains(const pb::StatusReply& reply, ChainCounts& counts) {
    counts.copies_meant = std::max<uint64_t>(1, reply.replicas());
    counts.copies_min = counts.copies_meant;
    for (const pb::Chain& chain : reply.map().chains()) {
        count_chain(chain, counts);
    }
    if (counts.total == 0) {
        counts.copies_min = 0;
    }
}

// The map survives a restart of the metadata server; until a daemon has reported to the new one,
// nobody knows whether it still runs.
void judge_report(const pb::StatusReply& reply,
                  const pb::Node& node,
                  const StatusContext& context,
                  StatusView& view) {
    for (const pb::TargetReport& report : reply.targets()) {
        if (node_of_target(reply.map(), report.target()) == node.id()) {
            return;
        }
    }
    ++view.nodes_silent;
    view.problems.push_back({Health::kDegraded,
                             "node " + node.name() + " has not reported yet",
                             "the metadata server was started and waits for its heartbeat",
                             start_again(context, "kdfs-storage on " + node.name())});
}

void judge_nodes(const pb::StatusReply& reply, const StatusContext& context, StatusView& view) {
    for (const pb::Node& node : reply.map().nodes()) {
        if (node.online()) {
            judge_report(reply, node, context, view);
            continue;
        }
        const auto& dead = context.nodes_not_running;
        bool known_dead = std::find(dead.begin(), dead.end(), node.name()) != dead.end();
        view.problems.push_back(
            {Health::kDegraded,
             "node " + node.name() + " is offline",
             known_dead ? "its process is not running" : "its daemon sends no heartbeats",
             start_again(context, "kdfs-storage on " + node.name())});
    }
    auto known = static_cast<uint64_t>(reply.map().nodes_size());
    if (known < context.nodes_expected) {
        view.problems.push_back(
            {Health::kDegraded,
             counted(context.nodes_expected - known, "node") + " of the cluster never came",
             "the manager knows " + std::to_string(known) + " of " +
                 std::to_string(context.nodes_expected) + " storage daemons",
             start_again(context, "kdfs-storage")});
    }
}

void judge_chains(const StatusContext& context, StatusView& view) {
    const ChainCounts& chains = view.chains;
    if (chains.total == 0) {
        view.problems.push_back({Health::kCritical,
                                 "there are no chains, so no file can be written",
                                 "too few storage daemons have joined to place the replicas",
                                 start_again(context, "kdfs-storage on the missing nodes")});
    }
    if (chains.down != 0) {
        view.problems.push_back(
            {Health::kCritical,
             counted(chains.down, "chain") + " without a serving member: data is unavailable",
             "every node that holds the newest copy is offline",
             start_again(context, "kdfs-storage on the offline nodes")});
    }
    if (chains.thin_down != 0) {
        view.problems.push_back(
            {Health::kDegraded,
             counted(chains.thin_down, "chain") +
                 " with fewer copies than usual unavailable: files with such a policy, if any, "
                 "cannot be read",
             "the nodes that hold the only copies are offline",
             start_again(context, "kdfs-storage on the offline nodes")});
    }
    if (chains.reduced != 0) {
        view.problems.push_back({Health::kDegraded,
                                 counted(chains.reduced, "chain") + " with missing copies",
                                 "the members that hold them are offline or wait for their turn",
                                 start_again(context, "kdfs-storage on the offline nodes")});
    }
    if (chains.syncing != 0) {
        view.problems.push_back({Health::kDegraded,
                                 counted(chains.syncing, "chain") + " being brought up to date",
                                 "a member came back and copies what it missed",
                                 "nothing; to see it end: kdfs status --wait 60"});
    }
}

void judge_targets(const pb::StatusReply& reply, StatusView& view) {
    for (const pb::TargetReport& target : reply.targets()) {
        view.space.total_bytes += target.total_bytes();
        view.space.free_bytes += target.free_bytes();
        view.space.chunks += target.chunks();
        std::string name = "target " + std::to_string(target.target()) + " on " +
                           node_name(reply.map(), node_of_target(reply.map(), target.target()));
        if (target.failed()) {
            view.problems.push_back({Health::kDegraded,
                                     name + " has failed",
                                     target.failure(),
                                     "check its disk (dmesg, smartctl), then restart its daemon"});
        }
        uint64_t low = target.total_bytes() / 100 * kLowSpacePercent;
        if (target.total_bytes() != 0 && target.free_bytes() < low) {
            view.problems.push_back(
                {Health::kDegraded,
                 name + " is nearly full: " + human_bytes(target.free_bytes()) + " free",
                 "files fill its disk, or other data on the same disk does",
                 "delete files (rm), or make room on its disk"});
        }
    }
}

std::string percent(uint64_t part, uint64_t whole) {
    return whole == 0 ? "0 %" : std::to_string(part * 100 / whole) + " %";
}

std::string padded(std::string text, size_t width) {
    text.resize(std::max(width, text.size()), ' ');
    return text;
}

// The map has them in the order in which they came.
std::vector<pb::Node> nodes_by_id(const pb::ClusterMap& map) {
    std::vector<pb::Node> nodes(map.nodes().begin(), map.nodes().end());
    std::sort(nodes.begin(), nodes.end(), [](const pb::Node& a, const pb::Node& b) {
        return a.id() < b.id();
    });
    return nodes;
}

std::vector<pb::Target> targets_by_id(const pb::ClusterMap& map) {
    std::vector<pb::Target> targets(map.targets().begin(), map.targets().end());
    std::sort(targets.begin(), targets.end(), [](const pb::Target& a, const pb::Target& b) {
        return a.id() < b.id();
    });
    return targets;
}

void nodes_text(std::string& out, const pb::ClusterMap& map) {
    uint64_t online = 0;
    for (const pb::Node& node : map.nodes()) {
        online += node.online() ? 1 : 0;
    }
    out += "nodes:      " + std::to_string(online) + " of " + std::to_string(map.nodes_size()) +
           " online\n";
    for (const pb::Node& node : nodes_by_id(map)) {
        out += "  " + padded(node.name(), 10) + " " + padded(node.address(), 22) + " " +
               (node.online() ? "online" : "OFFLINE") + "\n";
    }
}

struct MemberCounts {
    uint64_t serving = 0;
    uint64_t syncing = 0;
    uint64_t other = 0;
};

MemberCounts members_on(const pb::ClusterMap& map, uint64_t target) {
    MemberCounts counts;
    for (const pb::Chain& chain : map.chains()) {
        for (const pb::ChainMember& member : chain.members()) {
            if (member.target() != target) {
                continue;
            }
            bool serving = member.state() == pb::MEMBER_SERVING;
            bool syncing = member.state() == pb::MEMBER_SYNCING;
            counts.serving += serving ? 1 : 0;
            counts.syncing += syncing ? 1 : 0;
            counts.other += serving || syncing ? 0 : 1;
        }
    }
    return counts;
}

const pb::TargetReport* report_of(const pb::StatusReply& reply, uint64_t target) {
    for (const pb::TargetReport& report : reply.targets()) {
        if (report.target() == target) {
            return &report;
        }
    }
    return nullptr;
}

void targets_text(std::string& out, const pb::StatusReply& reply) {
    out += "targets:    " + std::to_string(reply.map().targets_size()) + "\n";
    for (const pb::Target& target : targets_by_id(reply.map())) {
        MemberCounts counts = members_on(reply.map(), target.id());
        out += "  " + padded("t" + std::to_string(target.id()), 6) + " on " +
               padded(node_name(reply.map(), target.node()), 10) +
               " chains: " + std::to_string(counts.serving) + " serving, " +
               std::to_string(counts.syncing) + " syncing, " + std::to_string(counts.other) +
               " out";
        const pb::TargetReport* report = report_of(reply, target.id());
        if (report != nullptr) {
            out += "; " + counted(report->chunks(), "chunk") + "; " +
                   human_bytes(report->free_bytes()) + " free of " +
                   human_bytes(report->total_bytes()) + (report->failed() ? "; FAILED" : "");
        }
        out += "\n";
    }
}

void chains_text(std::string& out, const StatusView& view) {
    const ChainCounts& chains = view.chains;
    out += "chains:     " + std::to_string(chains.total) + ": " + std::to_string(chains.full) +
           " complete, " + std::to_string(chains.syncing) + " syncing, " +
           std::to_string(chains.reduced) + " with copies missing, " + std::to_string(chains.down) +
           " unavailable\n";
    out += "redundancy: at least " + std::to_string(chains.copies_min) + " of " +
           std::to_string(chains.copies_meant) + " copies of every chunk\n";
    uint64_t used =
        view.space.total_bytes - std::min(view.space.free_bytes, view.space.total_bytes);
    out += "space:      " + human_bytes(used) + " used (" + percent(used, view.space.total_bytes) +
           "), " + human_bytes(view.space.free_bytes) + " free of " +
           human_bytes(view.space.total_bytes) + " on all targets\n";
}

void sessions_text(std::string& out, const pb::StatusReply& reply) {
    out += "files:      " + std::to_string(reply.inodes()) +
           "; to be collected: " + std::to_string(reply.gc_queued()) + " removed, " +
           std::to_string(reply.orphans()) + " unlinked but open\n";
    out += "sessions:   " + std::to_string(reply.sessions_size()) + "\n";
    for (const pb::SessionStatus& session : reply.sessions()) {
        out += "  " + padded(std::to_string(session.id()), 6) + " " + padded(session.name(), 30) +
               " " + counted(session.leases(), "lease") + ", " +
               counted(session.open_files(), "open file") +
               (session.connected()
                    ? ""
                    : ", not connected for " + std::to_string(session.idle_ms() / 1000) + " s") +
               "\n";
    }
}

nlohmann::json nodes_json(const pb::ClusterMap& map) {
    nlohmann::json out = nlohmann::json::array();
    for (const pb::Node& node : nodes_by_id(map)) {
        nlohmann::json one;
        one["id"] = node.id();
        one["name"] = node.name();
        one["address"] = node.address();
        one["online"] = node.online();
        out.push_back(one);
    }
    return out;
}

nlohmann::json targets_json(const pb::StatusReply& reply) {
    nlohmann::json out = nlohmann::json::array();
    for (const pb::Target& target : targets_by_id(reply.map())) {
        MemberCounts counts = members_on(reply.map(), target.id());
        nlohmann::json one;
        one["id"] = target.id();
        one["node"] = node_name(reply.map(), target.node());
        one["chains_serving"] = counts.serving;
        one["chains_syncing"] = counts.syncing;
        one["chains_out"] = counts.other;
        const pb::TargetReport* report = report_of(reply, target.id());
        if (report != nullptr) {
            one["total_bytes"] = report->total_bytes();
            one["free_bytes"] = report->free_bytes();
            one["chunks"] = report->chunks();
            one["failed"] = report->failed();
            one["failure"] = report->failure();
        }
        out.push_back(one);
    }
    return out;
}

nlohmann::json sessions_json(const pb::StatusReply& reply) {
    nlohmann::json out = nlohmann::json::array();
    for (const pb::SessionStatus& session : reply.sessions()) {
        nlohmann::json one;
        one["id"] = session.id();
        one["name"] = session.name();
        one["leases"] = session.leases();
        one["open_files"] = session.open_files();
        one["connected"] = session.connected();
        one["idle_ms"] = session.idle_ms();
        out.push_back(one);
    }
    return out;
}

nlohmann::json problems_json(const StatusView& view) {
    nlohmann::json out = nlohmann::json::array();
    for (const Problem& problem : view.problems) {
        nlohmann::json one;
        one["weight"] = health_name(problem.weight);
        one["what"] = problem.what;
        one["cause"] = problem.cause;
        one["fix"] = problem.fix;
        out.push_back(one);
    }
    return out;
}

void judge_mount(const StatusContext& context, StatusView& view) {
    if (!context.dead_mount.empty()) {
        view.problems.push_back({Health::kDegraded,
                                 "the mount at " + context.dead_mount + " is dead",
                                 "its kdfs-fuse is not running",
                                 start_again(context, "kdfs-fuse")});
    }
}

void settle_health(StatusView& view) {
    for (const Problem& problem : view.problems) {
        view.health = std::max(view.health, problem.weight);
    }
}

}  // namespace

std::string_view health_name(Health health) {
    switch (health) {
        case Health::kHealthy:
            return "healthy";
        case Health::kDegraded:
            return "degraded";
        case Health::kCritical:
            return "critical";
        case Health::kUnreachable:
            return "unreachable";
    }
    return "unknown";
}

StatusView judge_status(const pb::StatusReply& reply, const StatusContext& context) {
    StatusView view;
    count_chains(reply, view.chains);
    judge_chains(context, view);
    judge_nodes(reply, context, view);
    judge_targets(reply, view);
    judge_mount(context, view);
    size_t shown = 0;
    for (const std::string& warning : reply.warnings()) {
        if (++shown > kWarningsMax) {
            break;
        }
        std::string log =
            context.state_dir.empty() ? "the log of kdfs-mds" : context.state_dir + "/log/mds.log";
        view.problems.push_back(
            {Health::kDegraded, warning, "reported by the metadata server", "see " + log});
    }
    settle_health(view);
    return view;
}

StatusView unreachable_status(const std::string& cause, const StatusContext& context) {
    StatusView view;
    view.problems.push_back({Health::kUnreachable,
                             "the metadata server does not answer" +
                                 (context.mds_address.empty() ? "" : " at " + context.mds_address),
                             cause,
                             start_again(context, "kdfs-mds")});
    settle_health(view);
    return view;
}

std::string status_text(const StatusView& view,
                        const pb::StatusReply& reply,
                        const StatusContext& context) {
    std::string out = "health:     " + std::string(health_name(view.health)) + "\n";
    if (view.health != Health::kUnreachable) {
        out += "cluster:    " + reply.map().cluster_id() + ", epoch " +
               std::to_string(reply.map().epoch()) + ", metadata server " + context.mds_address +
               "\n";
        nodes_text(out, reply.map());
        targets_text(out, reply);
        chains_text(out, view);
        sessions_text(out, reply);
    }
    for (const Problem& problem : view.problems) {
        out += "problem:    " + problem.what + "\n  cause:    " + problem.cause +
               "\n  fix:      " + problem.fix + "\n";
    }
    return out;
}

nlohmann::json status_json(const StatusView& view,
                           const pb::StatusReply& reply,
                           const StatusContext& context) {
    nlohmann::json out;
    out["health"] = health_name(view.health);
    out["mds"] = context.mds_address;
    out["problems"] = problems_json(view);
    if (view.health == Health::kUnreachable) {
        return out;
    }
    out["cluster_id"] = reply.map().cluster_id();
    out["epoch"] = reply.map().epoch();
    out["nodes"] = nodes_json(reply.map());
    out["targets"] = targets_json(reply);
    out["sessions"] = sessions_json(reply);
    out["inodes"] = reply.inodes();
    out["gc_queued"] = reply.gc_queued();
    out["orphans"] = reply.orphans();
    nlohmann::json& chains = out["chains"];
    chains["total"] = view.chains.total;
    chains["complete"] = view.chains.full;
    chains["syncing"] = view.chains.syncing;
    chains["reduced"] = view.chains.reduced;
    chains["unavailable"] = view.chains.down + view.chains.thin_down;
    nlohmann::json& redundancy = out["redundancy"];
    redundancy["copies_min"] = view.chains.copies_min;
    redundancy["copies_meant"] = view.chains.copies_meant;
    nlohmann::json& space = out["space"];
    space["total_bytes"] = view.space.total_bytes;
    space["free_bytes"] = view.space.free_bytes;
    space["chunks"] = view.space.chunks;
    return out;
}

std::string human_bytes(uint64_t bytes) {
    static constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        return std::to_string(bytes) + " B";
    }
    auto value = static_cast<double>(bytes);
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < kUnits.size()) {
        value /= 1024;
        ++unit;
    }
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.1f %s", value, kUnits.at(unit));
    return text.data();
}

std::string counted(uint64_t count, const std::string& noun) {
    return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

}  // namespace kdfs::tools
