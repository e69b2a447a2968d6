#pragma once

#include "kdfs/base/result.h"
#include "tools/arguments.h"

#include <string>

namespace kdfs::tools {

// Which cluster a command speaks to, and how to reach it.
struct ClusterChoice {
    // Empty if the cluster is known not to run.
    std::string mds_address;
    std::string key_file;
    // If it runs on this machine under `kdfs up`; else empty.
    std::string state_dir;
    // The mount it was found by; may be empty.
    std::string mount;
};

// In this order: --dir; --mds with --cluster-key; the mount that holds `path` (if not empty);
// $KDFS_DIR; the mount that holds the current directory; the only kdfs mount of this machine.
// kInvalidArgument says what can be given if none of these leads to one cluster. kNotFound if what
// was given leads nowhere.
Result<ClusterChoice> choose_cluster(const Arguments& arguments, const std::string& path);

// --dir, --mds and --cluster-key as options of a command.
std::vector<OptionSpec> cluster_options();

}  // namespace kdfs::tools
