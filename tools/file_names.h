#pragma once

#include "kdfs/base/result.h"
#include "kdfs/proto/meta.pb.h"
#include "tools/cluster_link.h"

#include <cstdint>
#include <map>
#include <set>
#include <string>

namespace kdfs::tools {

// The file that a data id belongs to.
struct FileName {
    uint64_t ino = 0;
    std::string path;  // from the root of the file system; the first one, of a file with several
    pb::Layout layout;
};

// Finds the files with these data ids by reading the namespace through the metadata server, three
// times; what has no file any more is left out. Names that change meanwhile may come out wrong.
// Memory: some 60 bytes per directory.
Result<std::map<uint64_t, FileName>> find_file_names(ClusterLink& link,
                                                     const std::string& mds,
                                                     const std::set<uint64_t>& data);

}  // namespace kdfs::tools
