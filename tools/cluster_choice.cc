#include "tools/cluster_choice.h"

#include "tools/files.h"
#include "tools/mounts.h"
#include "tools/state_dir.h"

#include <cstdlib>

namespace kdfs::tools {

namespace {

Result<ClusterChoice> by_state(const std::string& dir) {
    std::string path = absolute_path(dir);
    KDFS_TRY_ASSIGN(StateDir state, StateDir::open(path));
    ClusterChoice choice;
    // A daemon that was stopped takes its address away.
    Result<std::string> address = state.address("mds");
    choice.mds_address = address.ok() ? *address : "";
    choice.key_file = state.key_file();
    choice.state_dir = path;
    choice.mount = state.settings().mount;
    return choice;
}

Result<ClusterChoice> by_mount(const Mount& mount) {
    for (const MountDaemon& daemon : mount_daemons()) {
        if (daemon.mount != mount.path || daemon.mds.empty() || daemon.key_file.empty()) {
            continue;
        }
        ClusterChoice choice;
        choice.mds_address = daemon.mds;
        choice.key_file = daemon.key_file;
        choice.mount = mount.path;
        std::string folder = daemon.key_file.substr(0, daemon.key_file.rfind('/'));
        Result<ClusterChoice> local = by_state(folder);
        if (local.ok() && local->key_file == daemon.key_file) {
            choice.state_dir = local->state_dir;
            choice.mds_address = local->mds_address;
        }
        return choice;
    }
    return Error(Errc::kNotFound,
                 "the kdfs-fuse behind " + mount.path +
                     " is not running or cannot be seen from here; name the cluster with --dir "
                     "STATE, or --mds ADDRESS --cluster-key FILE");
}

Result<ClusterChoice> by_path(const std::string& path) {
    std::string full = absolute_path(path);
    std::optional<Mount> mount = mount_holding(full);
    if (mount && !mount->is_kdfs()) {
        // A link may lead into a mount from outside.
        char* real = realpath(full.c_str(), nullptr);
        if (real != nullptr) {
            mount = mount_holding(real);
            std::free(real);
        }
    }
    if (!mount || !mount->is_kdfs()) {
        return Error(Errc::kInvalidArgument,
                     path + " is not on a kdfs mount; give a path below one");
    }
    return by_mount(*mount);
}

Result<ClusterChoice> by_default() {
    std::vector<Mount> found;
    std::optional<Mount> here = mount_holding(absolute_path("."));
    if (here && here->is_kdfs()) {
        return by_mount(*here);
    }
    for (Mount& mount : all_mounts()) {
        if (mount.is_kdfs()) {
            found.push_back(std::move(mount));
        }
    }
    if (found.size() == 1) {
        return by_mount(found.front());
    }
    std::string state =
        found.empty() ? "no kdfs is mounted on this machine" : "several kdfs are mounted";
    return Error(Errc::kInvalidArgument,
                 state +
                     "; name the cluster with --dir STATE, with --mds ADDRESS and "
                     "--cluster-key FILE, or by a path below its mount");
}

}  // namespace

Result<ClusterChoice> choose_cluster(const Arguments& arguments, const std::string& path) {
    if (arguments.has("dir")) {
        return by_state(arguments.get("dir"));
    }
    if (arguments.has("mds") != arguments.has("cluster-key")) {
        return Error(Errc::kInvalidArgument,
                     "--mds ADDRESS and --cluster-key FILE go together; give both");
    }
    if (arguments.has("mds")) {
        ClusterChoice choice;
        choice.mds_address = arguments.get("mds");
        choice.key_file = absolute_path(arguments.get("cluster-key"));
        return choice;
    }
    if (!path.empty()) {
        return by_path(path);
    }
    const char* from_environment = std::getenv("KDFS_DIR");
    if (from_environment != nullptr && *from_environment != '\0') {
        return by_state(from_environment);
    }
    return by_default();
}

std::vector<OptionSpec> cluster_options() {
    return {{"dir", "STATE", "the cluster by its state directory"},
            {"mds", "ADDRESS", "the cluster by its metadata server, with --cluster-key"},
            {"cluster-key", "FILE", "the cluster's key"}};
}

}  // namespace kdfs::tools
