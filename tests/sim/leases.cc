// What must hold of leases: of those that clients go by at every instant, of those that the
// metadata server knows when nobody works any more, and of those of storage nodes.

#include "tests/sim/cluster.h"
#include "tests/sim/processes.h"
#include "tests/sim/storage_process.h"

#include <string>

namespace kdfs::sim {
namespace {

// A lease that an answer gives is looked at by itself. All are, this often, because they also come
// back into use when a session goes on.
constexpr Duration kLook = std::chrono::seconds(1);
// The server keeps a session that is in nobody's way this long, and a sixteenth; see sessions.h.
constexpr Duration kNoLeaseBound =
    Cluster::kSessionLease * mds::Sessions::kCourtesyLeases + std::chrono::seconds(30);

}  // namespace

void Cluster::check_lease(size_t client, const client::FileClient& files, InodeId ino) {
    pb::LeaseMode mine = files.lease(ino);
    for (size_t other = 0; mine != pb::LEASE_NONE && other < clients_.size(); ++other) {
        client::FileClient* others_files = other == client ? nullptr : this->files(other);
        pb::LeaseMode theirs = others_files == nullptr ? pb::LEASE_NONE : others_files->lease(ino);
        if (theirs != pb::LEASE_NONE &&
            (mine == pb::LEASE_EXCLUSIVE || theirs == pb::LEASE_EXCLUSIVE)) {
            verdict_.wrong("inode " + std::to_string(ino.value) + ": client " +
                           std::to_string(client) + " uses it under " + pb::LeaseMode_Name(mine) +
                           " while client " + std::to_string(other) + " does under " +
                           pb::LeaseMode_Name(theirs));
        }
    }
}

void Cluster::check_all_leases() {
    if (shared_.clock.now() < next_look_at_leases_) {
        return;
    }
    next_look_at_leases_ = shared_.clock.now() + kLook;
    for (size_t client = 0; client < clients_.size(); ++client) {
        client::FileClient* files = this->files(client);
        if (files == nullptr) {
            continue;
        }
        for (const auto& [ino, mode] : files->leases()) {
            if (mode == pb::LEASE_EXCLUSIVE) {
                check_lease(client, *files, ino);
            }
        }
    }
}

void Cluster::check_fences() {
    auto now = map();
    for (size_t i = 0; now && i < storage_.size(); ++i) {
        if (!storage_[i]->started()) {
            continue;
        }
        auto& process = dynamic_cast<StorageProcess&>(storage_[i]->process());
        const storage::ClusterView& view = process.server().view();
        const pb::Node* node = now->node(view.node());
        bool in_place = node && node->online() && node->incarnation() == view.incarnation();
        if (!in_place && view.acting(storage_[i]->env().now())) {
            verdict_.wrong(storage_[i]->name() +
                           " acts although its place was given away under epoch " +
                           std::to_string(now->epoch().value));
        }
    }
}

void Cluster::check_served() {
    auto now = map();
    for (int i = 0; now && i < now->proto().chains_size(); ++i) {
        const pb::Chain& chain = now->proto().chains(i);
        bool runs = std::any_of(chain.members().begin(),
                                chain.members().end(),
                                [&](const pb::ChainMember& member) {
                                    const pb::Node* node = now->node_of(TargetId(member.target()));
                                    return node->online() && storage_[node->id() - 1]->started();
                                });
        if (runs && serving_members(chain).empty()) {
            verdict_.fail(Verdict::Kind::kNoProgress,
                          "a copy is there but nobody serves: chain " + chain.ShortDebugString());
        }
    }
}

void Cluster::check_no_lease_left() {
    auto held = [this] {
        return mds_->started() ? dynamic_cast<MdsProcess&>(mds_->process()).server().held()
                               : mds::Server::Held{.sessions = 1, .inodes = 0};
    };
    auto none = [held] { return held().sessions == 0 && held().inodes == 0; };
    if (!run_until(none, kNoLeaseBound)) {
        verdict_.fail(Verdict::Kind::kNoProgress,
                      std::to_string(held().sessions) + " sessions and what they hold, " +
                          std::to_string(held().inodes) +
                          " inodes, are left when every client has stopped");
    }
}

}  // namespace kdfs::sim
