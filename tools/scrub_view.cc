#include "tools/scrub_view.h"

#include "kdfs/proto/layout.h"
#include "tools/status_view.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <vector>

namespace kdfs::tools {

namespace {

std::set<uint64_t> targets_of_chains(const pb::ClusterMap& map) {
    std::set<uint64_t> out;
    for (const pb::Chain& chain : map.chains()) {
        for (const pb::ChainMember& member : chain.members()) {
            out.insert(member.target());
        }
    }
    return out;
}

std::string node_of(const pb::ClusterMap& map, uint64_t target) {
    for (const pb::Target& candidate : map.targets()) {
        for (const pb::Node& node : map.nodes()) {
            if (candidate.id() == target && candidate.node() == node.id()) {
                return node.name();
            }
        }
    }
    return "unknown node";
}

std::vector<pb::TargetReport> reports_by_target(const pb::StatusReply& reply) {
    std::vector<pb::TargetReport> out(reply.targets().begin(), reply.targets().end());
    std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
        return a.target() < b.target();
    });
    return out;
}

void add(pb::ScrubProgress& total, const pb::ScrubProgress& one) {
    total.set_chains(total.chains() + one.chains());
    total.set_chains_done(total.chains_done() + one.chains_done());
    total.set_chunks(total.chunks() + one.chunks());
    total.set_bytes(total.bytes() + one.bytes());
    total.set_damaged(total.damaged() + one.damaged());
    total.set_repaired(total.repaired() + one.repaired());
    total.set_unrepairable(total.unrepairable() + one.unrepairable());
    total.set_unequal(total.unequal() + one.unequal());
    total.set_levelled(total.levelled() + one.levelled());
}

std::string found_text(const pb::ScrubProgress& progress) {
    return counted(progress.chunks(), "chunk") + " with " + human_bytes(progress.bytes()) +
           " checked, " + std::to_string(progress.damaged()) + " damaged, " +
           std::to_string(progress.repaired()) + " repaired, " +
           std::to_string(progress.unrepairable()) + " not repairable, " +
           std::to_string(progress.unequal()) + " unequal, " + std::to_string(progress.levelled()) +
           " made equal";
}

std::string progress_text(const pb::ScrubProgress& progress, uint64_t number) {
    if (progress.number() != number) {
        return "has not begun";
    }
    std::string where = std::to_string(progress.chains_done()) + " of " +
                        counted(progress.chains(), "chain") + " done";
    if (progress.waiting() && !progress.finished()) {
        where += ", waits to serve the others (kdfs status)";
    }
    return where + "; " + found_text(progress);
}

// The part of the file that the chunk holds.
std::string place_text(const pb::DamagedChunk& chunk, const FileNames& names) {
    auto file = names.find(chunk.data());
    if (file == names.end()) {
        return "data " + std::to_string(chunk.data()) + " piece " + std::to_string(chunk.index()) +
               ", which belongs to no file by now";
    }
    uint64_t bytes = piece_bytes(file->second.layout);
    return file->second.path + " (inode " + std::to_string(file->second.ino) + "), bytes from " +
           std::to_string(chunk.index() * bytes) + " to " +
           std::to_string((chunk.index() + 1) * bytes - 1);
}

nlohmann::json progress_json(const pb::ScrubProgress& progress) {
    nlohmann::json out;
    out["chains"] = progress.chains();
    out["chains_done"] = progress.chains_done();
    out["chunks"] = progress.chunks();
    out["bytes"] = progress.bytes();
    out["damaged"] = progress.damaged();
    out["repaired"] = progress.repaired();
    out["unrepairable"] = progress.unrepairable();
    out["unequal"] = progress.unequal();
    out["levelled"] = progress.levelled();
    return out;
}

nlohmann::json lost_json(const pb::StatusReply& reply, const FileNames& names) {
    nlohmann::json out = nlohmann::json::array();
    for (const pb::TargetReport& report : reports_by_target(reply)) {
        for (const pb::DamagedChunk& chunk : report.damaged()) {
            nlohmann::json one;
            one["target"] = report.target();
            one["chain"] = chunk.chain();
            one["data"] = chunk.data();
            one["piece"] = chunk.index();
            auto file = names.find(chunk.data());
            if (file != names.end()) {
                uint64_t bytes = piece_bytes(file->second.layout);
                one["path"] = file->second.path;
                one["inode"] = file->second.ino;
                one["offset"] = chunk.index() * bytes;
                one["length"] = bytes;
            }
            out.push_back(one);
        }
    }
    return out;
}

}  // namespace

std::string_view scrub_state_name(ScrubState state) {
    switch (state) {
        case ScrubState::kNone:
            return "none";
        case ScrubState::kRunning:
            return "running";
        case ScrubState::kDone:
            return "done";
        case ScrubState::kStopped:
            return "stopped";
    }
    return "unknown";
}

ScrubView judge_scrub(const pb::StatusReply& reply) {
    ScrubView view;
    const pb::ScrubOrder& order = reply.map().scrub();
    std::set<uint64_t> members = targets_of_chains(reply.map());
    uint64_t finished = 0;
    for (const pb::TargetReport& report : reply.targets()) {
        const pb::ScrubProgress& progress = report.scrub();
        view.lost += report.damaged_chunks();
        for (const pb::DamagedChunk& chunk : report.damaged()) {
            view.lost_data.insert(chunk.data());
        }
        if (order.number() == 0 || progress.number() != order.number()) {
            continue;
        }
        add(view.total, progress);
        view.kept += progress.unequal() - std::min(progress.unequal(), progress.levelled());
        finished += progress.finished() && members.contains(report.target()) ? 1 : 0;
    }
    if (order.number() == 0) {
        view.state = ScrubState::kNone;
    } else if (finished == members.size()) {
        view.state = ScrubState::kDone;
    } else {
        view.state = order.running() ? ScrubState::kRunning : ScrubState::kStopped;
    }
    return view;
}

std::string scrub_text(const ScrubView& view,
                       const pb::StatusReply& reply,
                       const FileNames& names) {
    const pb::ScrubOrder& order = reply.map().scrub();
    std::string out = "scrub:      ";
    if (view.state == ScrubState::kNone) {
        out += "there was none yet; to begin one: kdfs scrub start\n";
    } else {
        out += std::string(scrub_state_name(view.state)) + ", number " +
               std::to_string(order.number()) + ", at most " +
               human_bytes(order.bytes_per_second()) + " per second and target\n";
        out += "all:        " + found_text(view.total) + "\n";
    }
    for (const pb::TargetReport& report : reports_by_target(reply)) {
        if (view.state != ScrubState::kNone) {
            out += "  t" + std::to_string(report.target()) + " on " +
                   node_of(reply.map(), report.target()) + ": " +
                   progress_text(report.scrub(), order.number()) + "\n";
        }
    }
    uint64_t named = 0;
    for (const pb::TargetReport& report : reports_by_target(reply)) {
        for (const pb::DamagedChunk& chunk : report.damaged()) {
            ++named;
            out += "lost:       " + place_text(chunk, names) + "; damaged on t" +
                   std::to_string(report.target()) + ", and no other member of chain " +
                   std::to_string(chunk.chain()) + " has it whole\n";
        }
    }
    if (named < view.lost) {
        out += "            and " + std::to_string(view.lost - named) +
               " more, which the logs of kdfs-storage name\n";
    }
    if (view.lost != 0) {
        out += "  fix:      restore these files from a backup, or remove them\n";
    }
    if (view.kept != 0) {
        out += "differ:     " + counted(view.kept, "copy") +
               " newer than the one of the chain's head; both stay, the logs of kdfs-storage name "
               "them (\"copies of a chunk differ\")\n";
    }
    return out;
}

nlohmann::json scrub_json(const ScrubView& view,
                          const pb::StatusReply& reply,
                          const FileNames& names) {
    const pb::ScrubOrder& order = reply.map().scrub();
    nlohmann::json out;
    out["state"] = scrub_state_name(view.state);
    out["number"] = order.number();
    out["bytes_per_second"] = order.bytes_per_second();
    out["total"] = progress_json(view.total);
    out["targets"] = nlohmann::json::array();
    for (const pb::TargetReport& report : reports_by_target(reply)) {
        bool begun = report.scrub().number() == order.number();
        nlohmann::json one = progress_json(begun ? report.scrub() : pb::ScrubProgress());
        one["id"] = report.target();
        one["node"] = node_of(reply.map(), report.target());
        one["begun"] = begun && order.number() != 0;
        one["finished"] = begun && report.scrub().finished();
        one["waiting"] = begun && report.scrub().waiting();
        out["targets"].push_back(one);
    }
    out["lost_chunks"] = view.lost;
    out["lost"] = lost_json(reply, names);
    out["differ"] = view.kept;
    return out;
}

}  // namespace kdfs::tools
