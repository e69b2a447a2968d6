#include "client/mount_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace kdfs::client {
namespace {

struct Spec {
    const char* name;
    const char* value;  // empty: takes none
    const char* help;
};

constexpr std::array kSpecs = {
    Spec{"mds", "HOST:PORT", "the metadata server"},
    Spec{"cluster-key", "FILE", "the key of the cluster"},
    Spec{"mount", "PATH", "where to mount, a directory"},
    Spec{"foreground", "", "stay in the foreground; log to standard error"},
    Spec{"read-only", "", "mount read-only"},
    Spec{"write-buffer", "BYTES", "written bytes kept in memory at most (default 64M)"},
    Spec{"read-ahead", "BYTES", "read ahead of a sequential reader, 0 for none (default 8M)"},
    Spec{"cache-inodes", "COUNT", "files remembered with their attributes (default 100000)"},
    Spec{"node-name", "NAME", "this machine as `kdfs status` calls it, to prefer its disks"},
    Spec{"io-uring", "auto|on|off", "requests over io_uring: if possible, else no mount, or never"},
    Spec{"log-file", "FILE", "where to log instead of standard error"},
    Spec{"option", "OPTION", "an option of mount(8) for the kernel, such as noexec"},
    Spec{"help", "", "this text"},
    Spec{"version", "", "the versions of kdfs-fuse and libfuse"},
};

Error invalid(std::string text) {
    return {Errc::kInvalidArgument, std::move(text) + "; see kdfs-fuse --help"};
}

Result<uint64_t> parse_count(const std::string& name, const std::string& text, uint64_t most) {
    uint64_t value = 0;
    const char* end = text.data() + text.size();
    auto [rest, error] = std::from_chars(text.data(), end, value);
    uint64_t unit = 1;
    if (error == std::errc() && rest != end) {
        switch (*rest) {
            case 'K':
                unit = KiB;
                break;
            case 'M':
                unit = MiB;
                break;
            case 'G':
                unit = GiB;
                break;
            default:
                unit = 0;
        }
        std::string_view suffix(rest + 1, static_cast<size_t>(end - rest - 1));
        unit = suffix.empty() || suffix == "iB" ? unit : 0;
    }
    if (text.empty() || error != std::errc() || unit == 0 || value > most / unit) {
        return invalid("--" + name + " '" + text + "': must be a number up to " +
                       std::to_string(most) + ", K, M or G may follow");
    }
    return value * unit;
}

Status set_number(const std::string& name, const std::string& text, ClientOptions& out) {
    constexpr uint64_t kBytesMax = 64 * GiB;
    constexpr uint64_t kInodesMin = 1000;
    constexpr uint64_t kInodesMax = 100000000;
    if (name == "cache-inodes") {
        KDFS_TRY_ASSIGN(out.inodes_max, parse_count(name, text, kInodesMax));
        out.inodes_max = std::max(out.inodes_max, kInodesMin);
        out.names_max = 4 * out.inodes_max;
    } else if (name == "write-buffer") {
        KDFS_TRY_ASSIGN(out.write_buffer_bytes, parse_count(name, text, kBytesMax));
        out.write_buffer_bytes = std::max(out.write_buffer_bytes, 2 * MiB);
    } else {
        KDFS_TRY_ASSIGN(out.read_ahead_bytes, parse_count(name, text, kBytesMax));
        out.read_cache_bytes = std::max(out.read_cache_bytes, 4 * out.read_ahead_bytes);
    }
    return {};
}

Result<RingUse> parse_ring_use(const std::string& text) {
    if (text == "auto") {
        return RingUse::kAuto;
    }
    if (text == "on") {
        return RingUse::kOn;
    }
    if (text == "off") {
        return RingUse::kOff;
    }
    return invalid("--io-uring '" + text + "': must be auto, on or off");
}

Status set_option(const std::string& name, const std::string& value, MountOptions& out) {
    if (name == "mds") {
        out.client.mds_address = value;
    } else if (name == "cluster-key") {
        out.key_file = value;
    } else if (name == "mount") {
        out.mount_point = value;
    } else if (name == "foreground") {
        out.foreground = true;
    } else if (name == "read-only") {
        out.read_only = true;
    } else if (name == "node-name") {
        out.client.node_name = value;
    } else if (name == "log-file") {
        out.log_file = value;
    } else if (name == "io-uring") {
        KDFS_TRY_ASSIGN(out.io_uring, parse_ring_use(value));
    } else if (name == "option") {
        if (value.starts_with("io_uring")) {
            // libfuse would answer requests on threads of its own; see docs/decisions.md.
            return invalid("option '" + value + "' is libfuse's own: use --io-uring on");
        }
        out.system.push_back(value);
    } else if (name == "help") {
        out.help = true;
    } else if (name == "version") {
        out.version = true;
    } else {
        return set_number(name, value, out.client);
    }
    return {};
}

const Spec* find_spec(const std::string& name) {
    for (const Spec& spec : kSpecs) {
        if (name == spec.name) {
            return &spec;
        }
    }
    return nullptr;
}

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> out;
    size_t from = 0;
    while (from <= text.size()) {
        size_t to = std::min(text.find(separator, from), text.size());
        if (to > from) {
            out.push_back(text.substr(from, to - from));
        }
        from = to + 1;
    }
    return out;
}

// One option of `-o`, as words for kdfs-fuse.
void translate(const std::string& option, std::vector<std::string>& out) {
    static const std::array<const char*, 8> kForMountOnly =
        {"auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "defaults"};
    size_t equals = option.find('=');
    std::string name = option.substr(0, equals);
    if (name == "key") {
        name = "cluster-key";
    }
    if (name == "io_uring" || name == "io-uring") {
        out.emplace_back("--io-uring");
        out.push_back(equals == std::string::npos ? "on" : option.substr(equals + 1));
        return;
    }
    bool mounts_own =
        std::find(kForMountOnly.begin(), kForMountOnly.end(), name) != kForMountOnly.end() ||
        name.starts_with("x-") || name.starts_with("comment");
    if (mounts_own || name == "rw") {
        return;
    }
    if (name == "ro") {
        out.emplace_back("--read-only");
    } else if (find_spec(name) != nullptr) {
        out.push_back("--" + name);
        if (equals != std::string::npos) {
            out.push_back(option.substr(equals + 1));
        }
    } else {
        out.emplace_back("--option");
        out.push_back(option);
    }
}

}  // namespace

Result<MountOptions> parse_mount_options(const std::vector<std::string>& words) {
    MountOptions out;
    for (size_t i = 0; i < words.size(); ++i) {
        std::string name = words[i];
        if (name == "-h") {
            name = "--help";
        }
        if (!name.starts_with("--")) {
            return invalid("'" + name + "' is no option");
        }
        name = name.substr(2);
        std::optional<std::string> value;
        if (size_t equals = name.find('='); equals != std::string::npos) {
            value = name.substr(equals + 1);
            name = name.substr(0, equals);
        }
        const Spec* spec = find_spec(name);
        if (spec == nullptr) {
            return invalid("there is no option --" + name);
        }
        bool takes_value = spec->value[0] != '\0';
        if (takes_value && !value) {
            if (++i == words.size()) {
                return invalid("--" + name + " lacks its " + spec->value);
            }
            value = words[i];
        }
        if (!takes_value && value) {
            return invalid("--" + name + " takes no value");
        }
        KDFS_TRY(set_option(name, value.value_or(""), out));
    }
    if (out.help || out.version) {
        return out;
    }
    for (auto& [name, text] : {std::pair<const char*, std::string&>{"mds", out.client.mds_address},
                               {"cluster-key", out.key_file},
                               {"mount", out.mount_point}}) {
        if (text.empty()) {
            return invalid("--" + std::string(name) + " is missing");
        }
    }
    return out;
}

Result<std::vector<std::string>> from_mount_helper(const std::vector<std::string>& words) {
    std::vector<std::string> operands;
    std::vector<std::string> out;
    for (size_t i = 0; i < words.size(); ++i) {
        if (words[i] == "-o" && i + 1 < words.size()) {
            for (const std::string& option : split(words[++i], ',')) {
                translate(option, out);
            }
        } else if ((words[i] == "-N" || words[i] == "-t") && i + 1 < words.size()) {
            ++i;
        } else if (words[i] == "-r") {
            out.emplace_back("--read-only");
        } else if (!words[i].starts_with("-")) {
            operands.push_back(words[i]);
        }
    }
    if (operands.size() != 2) {
        return Error(Errc::kInvalidArgument,
                     "usage: mount -t kdfs -o cluster-key=FILE[,OPTION...] MDS-HOST:PORT PATH");
    }
    out.insert(out.begin(), {"--mds", operands[0], "--mount", operands[1]});
    return out;
}

std::string mount_help() {
    std::string out =
        "usage: kdfs-fuse --mds HOST:PORT --cluster-key FILE --mount PATH [OPTION...]\n"
        "       mount -t kdfs -o cluster-key=FILE[,OPTION...] HOST:PORT PATH\n"
        "Mounts a kdfs cluster.\n\n";
    constexpr size_t kColumn = 28;
    for (const Spec& spec : kSpecs) {
        std::string left = "  --" + std::string(spec.name);
        if (spec.value[0] != '\0') {
            left += std::string(" ") + spec.value;
        }
        left.resize(std::max(kColumn, left.size() + 1), ' ');
        out += left + spec.help + "\n";
    }
    return out;
}

}  // namespace kdfs::client
