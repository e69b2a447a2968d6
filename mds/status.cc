#include "mds/status.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

namespace kdfs::mds {
namespace {

constexpr const char* kStartAgain =
    "start its daemon again with `kdfs up --dir STATE` on its machine";

std::string number(uint64_t n, const std::string& one, const std::string& many) {
    return std::to_string(n) + " " + (n == 1 ? one : many);
}

void warn_of_nodes(const Membership& membership, uint64_t expected, pb::StatusReply& reply) {
    const pb::ClusterMap& map = membership.map();
    if (map.chains().empty()) {
        reply.add_warnings("only " + std::to_string(membership.nodes_online()) + " of " +
                           std::to_string(expected) +
                           " storage nodes have reported, so no file can be stored yet: start "
                           "the others with `kdfs up --dir STATE`");
    }
    for (const pb::Node& n : map.nodes()) {
        if (!n.online()) {
            reply.add_warnings("storage node " + n.name() + " (" + n.address() +
                               ") does not answer: " + kStartAgain);
        }
    }
}

void warn_of_chains(const pb::ClusterMap& map, pb::StatusReply& reply) {
    std::map<uint64_t, std::string> node_of;
    std::map<uint64_t, std::string> names;
    for (const pb::Node& n : map.nodes()) {
        names[n.id()] = n.name();
    }
    for (const pb::Target& t : map.targets()) {
        node_of[t.id()] = names[t.node()];
    }
    uint64_t syncing = 0;
    uint64_t thin = 0;
    std::map<std::string, uint64_t> lost;  // by the nodes that served last
    for (const pb::Chain& c : map.chains()) {
        bool missing = false;
        std::string last;
        for (const pb::ChainMember& m : c.members()) {
            syncing += m.state() == pb::MEMBER_SYNCING ? 1 : 0;
            missing = missing || m.state() == pb::MEMBER_OFFLINE;
            if (m.state() == pb::MEMBER_LAST_SERVING) {
                last += (last.empty() ? "" : " or ") + node_of[m.target()];
            }
        }
        if (!last.empty()) {
            ++lost[last];
        }
        thin += missing ? 1 : 0;
    }
    for (const auto& [nodes, count] : lost) {
        reply.add_warnings(
            number(count, "chain waits", "chains wait") + " for storage node " + nodes +
            ", which served last; files there cannot be read or written: " + kStartAgain);
    }
    if (thin != 0) {
        reply.add_warnings(number(thin, "chain lacks", "chains lack") +
                           " a replica because a node or disk is away; data is safe on the "
                           "others, but another loss may stop files: bring the node back");
    }
    if (syncing != 0) {
        reply.add_warnings(number(syncing, "replica is", "replicas are") +
                           " being brought up to date: wait, `kdfs status` shows when it is done");
    }
}

void warn_of_targets(const Membership& membership, pb::StatusReply& reply) {
    constexpr uint64_t kLowSpacePart = 20;  // a twentieth
    for (const auto& [id, report] : membership.reports()) {
        std::string who = "target " + std::to_string(id);
        if (report.failed()) {
            reply.add_warnings(who + " has a failing disk (" + report.failure() +
                               ") and is not used: replace the disk, then restart its daemon "
                               "with `kdfs up --dir STATE`");
        } else if (report.full()) {
            reply.add_warnings(
                who + " has no room for the data it missed, so its chains go on " +
                "without it: remove files, or start its daemon with more "
                "--capacity; it is brought up to date once a sixteenth more is free");
        } else if (report.total_bytes() != 0 &&
                   report.free_bytes() < report.total_bytes() / kLowSpacePart) {
            reply.add_warnings(who + " has less than 5 % of its space left (" +
                               std::to_string(report.free_bytes() / MiB) +
                               " MiB): remove files, or add storage");
        }
        if (report.damaged_chunks() != 0) {
            reply.add_warnings(who + " has " +
                               number(report.damaged_chunks(), "damaged chunk", "damaged chunks") +
                               " that no other member of the chain has; `kdfs scrub status` "
                               "names their files: restore these from a backup, or remove them");
        }
        uint64_t differ = report.scrub().unequal() - report.scrub().levelled();
        if (report.scrub().unequal() > report.scrub().levelled()) {
            reply.add_warnings(who + " and others of its chains have different copies of " +
                               number(differ, "chunk", "chunks") +
                               ", and its own are the older ones: they stay as they are; its log "
                               "names them, `kdfs fsck` shows whether they still differ");
        }
    }
}

// An answer is one frame. What does not fit is left out: names of damaged chunks, sessions, then
// warnings.
void bound(pb::StatusReply& reply) {
    constexpr size_t kReplyBytesMax = kBodyBytesMax - 64 * KiB;
    if (reply.ByteSizeLong() > kReplyBytesMax) {
        for (pb::TargetReport& report : *reply.mutable_targets()) {
            report.clear_damaged();
        }
    }
    int sessions = reply.sessions_size();
    while (reply.ByteSizeLong() > kReplyBytesMax && reply.sessions_size() > 0) {
        int keep = reply.sessions_size() / 2;
        reply.mutable_sessions()->DeleteSubrange(keep, reply.sessions_size() - keep);
    }
    while (reply.ByteSizeLong() > kReplyBytesMax && reply.warnings_size() > 0) {
        int keep = reply.warnings_size() / 2;
        reply.mutable_warnings()->DeleteSubrange(keep, reply.warnings_size() - keep);
    }
    if (reply.sessions_size() < sessions) {
        reply.add_warnings(std::to_string(sessions - reply.sessions_size()) +
                           " more mounts are not listed: the answer would be too long");
    }
}

}  // namespace

void add_warnings(const Membership& membership, uint64_t expected_nodes, pb::StatusReply& reply) {
    warn_of_nodes(membership, expected_nodes, reply);
    warn_of_chains(membership.map(), reply);
    warn_of_targets(membership, reply);
}

pb::StatusReply make_status(const State& state, const Counts& counts) {
    pb::StatusReply reply;
    *reply.mutable_map() = state.manager.map()->proto();
    for (const auto& [target, report] : state.manager.membership().reports()) {
        *reply.add_targets() = report;
    }
    TimePoint now = state.env.now();
    bool waiting = false;
    for (const auto& [id, session] : state.sessions.all()) {
        pb::SessionStatus* s = reply.add_sessions();
        s->set_id(id.value);
        s->set_name(session.name);
        s->set_leases(state.leases->lease_count(id));
        s->set_open_files(state.leases->open_count(id));
        auto idle = std::chrono::duration_cast<std::chrono::milliseconds>(now - session.heard);
        s->set_idle_ms(static_cast<uint32_t>(std::max<int64_t>(0, idle.count())));
        s->set_connected(session.connection != 0);
        waiting = waiting || !session.resumed;
    }
    reply.set_inodes(counts.inodes);
    reply.set_orphans(counts.orphans);
    reply.set_gc_queued(counts.gc_queued);
    add_warnings(state.manager.membership(), state.options.expected_nodes, reply);
    if (waiting) {
        reply.add_warnings(
            "the metadata server was restarted and waits for clients to come back: it goes on "
            "within " +
            std::to_string(
                std::chrono::duration_cast<std::chrono::seconds>(state.sessions.lease()).count()) +
            " s, nothing is to be done");
    }
    bound(reply);
    return reply;
}

}  // namespace kdfs::mds
