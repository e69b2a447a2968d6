#pragma once

#include "kdfs/base/types.h"

#include <cstdint>
#include <string>

namespace kdfs::client {

// Settings of one mount or tool. Bytes and counts are bounds, not reservations.
struct ClientOptions {
    std::string mds_address;
    std::string name;        // as `kdfs status` shows the session
    std::string node_name;   // the machine, for reads and placement close by; may be empty
    std::string cluster_id;  // refuse another cluster; empty: any
    // Written bytes that are not in the chunks yet, over all files. Writers wait beyond it.
    uint64_t write_buffer_bytes = 64 * MiB;
    // How far ahead of a sequential reader, per open file; and what all files keep of it.
    uint64_t read_ahead_bytes = 8 * MiB;
    uint64_t read_cache_bytes = 64 * MiB;
    // Bytes on their way to or from storage daemons at once.
    uint64_t window_bytes = 48 * MiB;
    // Inodes remembered with attributes and leases; and names under directory leases.
    uint64_t inodes_max = 100000;
    uint64_t names_max = 400000;
    // How long an operation goes on trying while servers are away, before the application sees an
    // error.
    Duration patience = std::chrono::seconds(120);
};

}  // namespace kdfs::client
