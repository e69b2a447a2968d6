#pragma once

#include "client/options.h"
#include "kdfs/base/result.h"

#include <optional>
#include <string>
#include <vector>

namespace kdfs::client {

// Whether the kernel's requests come over io_uring (see fuse_uring.h): if it can be, or not at all,
// or else there is no mount.
enum class RingUse { kAuto, kOff, kOn };

// The command line of kdfs-fuse.
struct MountOptions {
    ClientOptions client;
    std::string key_file;
    std::string mount_point;
    std::string log_file;
    bool foreground = false;
    bool read_only = false;
    RingUse io_uring = RingUse::kAuto;
    std::vector<std::string> system;  // options of mount(8) for the kernel, such as noexec
    bool help = false;
    bool version = false;
};

// Parses the words after the program's name. kInvalidArgument says what is wrong with which word.
Result<MountOptions> parse_mount_options(const std::vector<std::string>& words);
// The words for kdfs-fuse that mean what `mount.kdfs SOURCE PATH -o OPTIONS` asks for.
Result<std::vector<std::string>> from_mount_helper(const std::vector<std::string>& words);
std::string mount_help();

}  // namespace kdfs::client
