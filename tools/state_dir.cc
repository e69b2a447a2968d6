#include "tools/state_dir.h"

#include "kdfs/rt/cluster_key.h"
#include "tools/files.h"

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

namespace kdfs::tools {

namespace {

using nlohmann::json;

constexpr uint64_t kFormat = 1;
constexpr size_t kSettingsBytesMax = 64 * 1024;

std::string settings_file(const std::string& path) { return path + "/kdfs.json"; }

std::string to_text(const ClusterSettings& settings) {
    json out;
    out["format"] = kFormat;
    out["cluster_id"] = settings.cluster_id;
    out["nodes"] = settings.nodes;
    out["replicas"] = settings.replicas;
    out["targets_per_node"] = settings.targets_per_node;
    out["port_base"] = settings.port_base;
    out["capacity_bytes"] = settings.capacity_bytes;
    out["mount"] = settings.mount;
    return out.dump(4, ' ', false, json::error_handler_t::replace) + "\n";
}

Error damaged(const std::string& path, const std::string& what) {
    return Error(Errc::kMalformed,
                 settings_file(path) + " is damaged: " + what +
                     "; put the right file back, or start anew in another directory");
}

bool read_count(const json& from, const char* name, uint64_t& to, uint64_t max) {
    auto found = from.find(name);
    if (found == from.end() || !found->is_number_unsigned()) {
        return false;
    }
    to = found->get<uint64_t>();
    return to <= max;
}

bool read_text(const json& from, const char* name, std::string& to) {
    auto found = from.find(name);
    if (found == from.end() || !found->is_string()) {
        return false;
    }
    to = found->get<std::string>();
    return true;
}

Result<ClusterSettings> from_text(const std::string& path, const std::string& text) {
    json in = json::parse(text, nullptr, false);
    if (in.is_discarded() || !in.is_object()) {
        return damaged(path, "it is not a JSON object");
    }
    uint64_t format = 0;
    if (!read_count(in, "format", format, UINT32_MAX)) {
        return damaged(path, "it has no format number");
    }
    if (format != kFormat) {
        return Error(Errc::kWrongVersion,
                     settings_file(path) + " has format " + std::to_string(format) +
                         ", this kdfs knows " + std::to_string(kFormat) +
                         "; use the kdfs that made it");
    }
    ClusterSettings out;
    bool ok = read_count(in, "nodes", out.nodes, ClusterSettings::kNodesMax) &&
              read_count(in, "replicas", out.replicas, ClusterSettings::kNodesMax) &&
              read_count(in,
                         "targets_per_node",
                         out.targets_per_node,
                         ClusterSettings::kTargetsPerNodeMax) &&
              read_count(in, "port_base", out.port_base, UINT16_MAX) &&
              read_count(in, "capacity_bytes", out.capacity_bytes, UINT64_MAX) &&
              read_text(in, "mount", out.mount) && read_text(in, "cluster_id", out.cluster_id);
    if (!ok || out.nodes == 0 || out.replicas == 0 || out.targets_per_node == 0) {
        return damaged(path, "a setting is missing or out of range");
    }
    return out;
}

Status check_vacant(const std::string& path) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) {
        return {};
    }
    if (!S_ISDIR(info.st_mode)) {
        return Error(Errc::kNotDirectory,
                     "--dir " + path + " is not a directory; give another one");
    }
    std::vector<std::string> names = list_directory(path);
    if (!names.empty()) {
        return Error(Errc::kNotEmpty,
                     "--dir " + path + " is not empty and no state directory of kdfs (it holds " +
                         names.front() + ", but no kdfs.json); give an empty or a new directory");
    }
    return {};
}

Status make_parents(const std::string& path) {
    for (size_t slash = path.find('/', 1); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
        KDFS_TRY(make_directory(path.substr(0, slash), 0755));
    }
    return {};
}

}  // namespace

Result<StateDir> StateDir::create(const std::string& path, const ClusterSettings& settings) {
    KDFS_TRY(check_vacant(path));
    KDFS_TRY(make_parents(path));
    KDFS_TRY(make_directory(path, 0700));
    if (chmod(path.c_str(), 0700) != 0) {
        return errno_error(errno, "set mode 0700 on " + path);
    }
    StateDir state(path, settings);
    for (const char* folder : {"/log", "/run"}) {
        KDFS_TRY(make_directory(path + folder, 0700));
    }
    KDFS_TRY(create_cluster_key(state.key_file()));
    // Last, because it is what makes the directory ours.
    KDFS_TRY(state.save(settings));
    return state;
}

Result<StateDir> StateDir::open(const std::string& path) {
    Result<std::string> text = read_file(settings_file(path), kSettingsBytesMax);
    if (!text.ok() &&
        (text.error().code == Errc::kNotFound || text.error().code == Errc::kNotDirectory)) {
        return Error(Errc::kNotFound,
                     "there is no cluster in " + path +
                         " (no kdfs.json); make one with: kdfs up --dir " + path + " --mount PATH");
    }
    if (!text.ok()) {
        return text.error();
    }
    KDFS_TRY_ASSIGN(ClusterSettings settings, from_text(path, *text));
    for (const char* folder : {"/log", "/run"}) {
        KDFS_TRY(make_directory(path + folder, 0700));
    }
    return StateDir(path, std::move(settings));
}

Status StateDir::save(const ClusterSettings& settings) {
    KDFS_TRY(write_file(settings_file(path_), to_text(settings), 0600));
    settings_ = settings;
    return {};
}

Result<std::string> StateDir::address(const std::string& daemon) const {
    KDFS_TRY_ASSIGN(std::string text, read_file(address_file(daemon), 4096));
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
        text.pop_back();
    }
    return text;
}

Result<StateLock> StateLock::take(const StateDir& state) {
    std::string path = state.path() + "/lock";
    int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno_error(errno, "open " + path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return Error(Errc::kBusy,
                     "another kdfs up or kdfs down is at work on " + state.path() +
                         "; try again when it is done");
    }
    return StateLock(fd);
}

StateLock::StateLock(StateLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

StateLock::~StateLock() {
    if (fd_ >= 0) {
        close(fd_);
    }
}

Result<std::string> state_path(const Arguments& arguments, const std::string& command) {
    const char* from_environment = std::getenv("KDFS_DIR");
    std::string path = arguments.get("dir", from_environment == nullptr ? "" : from_environment);
    if (path.empty()) {
        return Error(Errc::kInvalidArgument,
                     "kdfs " + command + " lacks --dir STATE (and KDFS_DIR is not set); see kdfs " +
                         command + " --help");
    }
    return absolute_path(path);
}

}  // namespace kdfs::tools
