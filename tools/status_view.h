#pragma once

#include "kdfs/proto/cluster.pb.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace kdfs::tools {

enum class Health { kHealthy, kDegraded, kCritical, kUnreachable };
std::string_view health_name(Health health);

// Something that is not as it should be: what, why, and the command or step that mends it.
struct Problem {
    Health weight = Health::kDegraded;
    std::string what;
    std::string cause;
    std::string fix;
};

// What the tool knows besides the manager's answer.
struct StatusContext {
    std::string mds_address;
    // The state directory, if the cluster runs on this machine; else empty.
    std::string state_dir;
    // How many storage daemons the cluster was made with; 0 if unknown.
    uint64_t nodes_expected = 0;
    // A mount of it that the kernel still lists although its kdfs-fuse is gone; else empty.
    std::string dead_mount;
    // Names of nodes whose process is known not to run.
    std::vector<std::string> nodes_not_running;
};

struct ChainCounts {
    uint64_t total = 0;
    // All replicas serve.
    uint64_t full = 0;
    // Fewer serve, the missing ones are being brought up to date.
    uint64_t syncing = 0;
    // Fewer serve, and nothing is being done about it now.
    uint64_t reduced = 0;
    // Nobody serves: their data is not available.
    uint64_t down = 0;
    // The same for chains with fewer copies than usual, which only files hold whose policy says so.
    uint64_t thin_down = 0;
    // The fewest serving members of any chain with the usual copies, and how many are usual.
    uint64_t copies_min = 0;
    uint64_t copies_meant = 0;
};

struct SpaceTotals {
    uint64_t total_bytes = 0;
    uint64_t free_bytes = 0;
    uint64_t chunks = 0;
};

// The manager's answer, judged. Pure: the same input gives the same view.
struct StatusView {
    Health health = Health::kHealthy;
    ChainCounts chains;
    SpaceTotals space;
    // Online by the map, but not heard of since the metadata server started.
    uint64_t nodes_silent = 0;
    std::vector<Problem> problems;
};

StatusView judge_status(const pb::StatusReply& reply, const StatusContext& context);
// The view of a cluster that does not answer.
StatusView unreachable_status(const std::string& cause, const StatusContext& context);

std::string status_text(const StatusView& view,
                        const pb::StatusReply& reply,
                        const StatusContext& context);
nlohmann::json status_json(const StatusView& view,
                           const pb::StatusReply& reply,
                           const StatusContext& context);

// "1.5 GiB", "12 B".
std::string human_bytes(uint64_t bytes);
// "1 chunk", "3 chunks".
std::string counted(uint64_t count, const std::string& noun);

}  // namespace kdfs::tools
