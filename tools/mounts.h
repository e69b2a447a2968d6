#pragma once

#include "kdfs/base/result.h"
#include "tools/process.h"

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace kdfs::tools {

// One line of /proc/self/mountinfo.
struct Mount {
    std::string path;
    std::string type;
    std::string source;

    bool is_kdfs() const { return type == "fuse.kdfs"; }
};

// Parses the text of a mountinfo file; lines that do not parse are left out.
std::vector<Mount> parse_mounts(const std::string& text);
// The mounts of this machine, oldest first.
std::vector<Mount> all_mounts();
// The topmost mount exactly at `path` (absolute).
std::optional<Mount> mount_at(const std::string& path);
// The mount that holds `path` (absolute), by text, so that it asks no file system.
std::optional<Mount> mount_holding(const std::string& path);

// A running kdfs-fuse, as its command line tells.
struct MountDaemon {
    ProcessId process;
    std::string mount;
    std::string mds;
    std::string key_file;
};
std::vector<MountDaemon> mount_daemons();

// Asks the file system at `path` for its root's attributes, in a process of its own, since a dead
// file system never answers. kTimeout after `patience`.
Status probe_mount(const std::string& path, std::chrono::milliseconds patience);

enum class Unmount { kNormal, kLazy };
// kBusy if it is in use.
Status unmount(const std::string& path, Unmount how);
// "bash (4711)" of each process with a file, directory or mapping below `path`, at most `most`.
std::vector<std::string> users_of(const std::string& path, size_t most);

}  // namespace kdfs::tools
