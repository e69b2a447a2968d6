#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"

#include <string>

namespace kdfs::storage {

// What a target's directory says of itself, in its file "target": four lines of text,
//   kdfs-target 1
//   node N
//   target N
//   cluster ID      (or "cluster -" before the daemon was in one)
// Written whole or not at all, and durable.
struct TargetIdentity {
    NodeId node;
    TargetId target;
    std::string cluster_id;
};

// Makes the directory and its identity if there is none, else checks it: kWrongCluster for a
// directory of another cluster, kExists for one of another node or target, kMalformed for a file
// that is none of ours, kNotEmpty for a directory with something else in it. A field of `wanted`
// that is 0 or empty takes what is stored. Blocking: called before the loop runs.
Result<TargetIdentity> open_target_directory(const std::string& directory,
                                             const TargetIdentity& wanted);
// Writes the identity again, with the cluster that is known by now.
Status store_identity(const std::string& directory, const TargetIdentity& identity);
// Writes `text` to `path`, whole or not at all.
Status write_small_file(const std::string& path, const std::string& text);

}  // namespace kdfs::storage
