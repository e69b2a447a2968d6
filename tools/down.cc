#include "tools/command.h"
#include "tools/files.h"
#include "tools/local_cluster.h"
#include "tools/mounts.h"

#include <algorithm>
#include <thread>

namespace kdfs::tools {

namespace {

// A file manager or an indexer looks at a mount for a moment; only a lasting user is an obstacle.
constexpr auto kBusyPatience = std::chrono::seconds(2);
// A mount that was unmounted writes what it still holds.
constexpr auto kFlushPatience = std::chrono::seconds(60);
constexpr auto kStopPatience = std::chrono::seconds(20);
constexpr size_t kUsersShown = 10;

CommandSpec down_spec() {
    CommandSpec spec;
    spec.name = "down";
    spec.summary = "Unmount and stop a cluster of this machine";
    spec.details =
        "Unmounts every mount of the cluster on this machine, which writes all data, then stops "
        "its daemons. The files stay in the state directory: kdfs up --dir STATE brings them back. "
        "Stopping what does not run is no error.";
    spec.options = {{"dir", "STATE", "the cluster's state directory (default: $KDFS_DIR)"},
                    {"force", "", "unmount although processes use the mount; they get errors"}};
    spec.examples = {"kdfs down --dir /var/tmp/k1"};
    return spec;
}

// The mounts of this cluster on this machine, also those that were mounted by hand.
std::vector<MountDaemon> mounts_of(const StateDir& state, const LocalCluster& cluster) {
    std::vector<MountDaemon> out;
    std::optional<ProcessId> own = cluster.running("mount");
    for (MountDaemon& daemon : mount_daemons()) {
        if (daemon.key_file == state.key_file() || (own && *own == daemon.process)) {
            out.push_back(std::move(daemon));
        }
    }
    bool known = std::any_of(out.begin(), out.end(), [&own](const MountDaemon& daemon) {
        return own && daemon.process == *own;
    });
    if (own && !known) {
        out.push_back({*own, state.settings().mount, "", state.key_file()});
    }
    return out;
}

Error in_use(const std::string& path) {
    std::string users;
    for (const std::string& user : users_of(path, kUsersShown)) {
        users += (users.empty() ? "" : ", ") + user;
    }
    if (users.empty()) {
        users = "a process or a mount inside it that cannot be seen from here";
    }
    return Error(Errc::kBusy,
                 path + " is in use by " + users +
                     "; end these processes or leave the directory, or add --force");
}

Status unmount_one(const std::string& path, bool force) {
    auto deadline = LocalCluster::Clock::now() + kBusyPatience;
    while (mount_at(path)) {
        Status done = unmount(path, Unmount::kNormal);
        if (done.ok()) {
            continue;
        }
        if (done.error().code != Errc::kBusy) {
            return done;
        }
        if (force) {
            return unmount(path, Unmount::kLazy);
        }
        if (LocalCluster::Clock::now() >= deadline) {
            return in_use(path);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return {};
}

// A mount that is still in the list although nobody serves it, left by a killed kdfs-fuse.
Status clear_dead_mount(const std::string& path) {
    std::optional<Mount> mount = mount_at(path);
    if (!mount || !mount->is_kdfs()) {
        return {};
    }
    Status answer = probe_mount(path, std::chrono::seconds(2));
    if (answer.ok() || answer.error().code == Errc::kTimeout) {
        return {};
    }
    return unmount(path, Unmount::kLazy);
}

Status run_down(const Arguments& arguments, Console& console) {
    KDFS_TRY_ASSIGN(std::string path, state_path(arguments, "down"));
    KDFS_TRY_ASSIGN(StateDir state, StateDir::open(path));
    KDFS_TRY_ASSIGN(StateLock lock, StateLock::take(state));
    LocalCluster cluster(state);
    bool force = arguments.has("force");
    std::vector<MountDaemon> mounts = mounts_of(state, cluster);
    bool was_running =
        !mounts.empty() || cluster.not_running().size() < cluster.daemon_names().size();
    for (const MountDaemon& daemon : mounts) {
        if (!daemon.mount.empty()) {
            KDFS_TRY(unmount_one(daemon.mount, force));
        }
    }
    for (const MountDaemon& daemon : mounts) {
        // After a lazy unmount it runs on while files are open in it.
        auto patience = force ? std::chrono::seconds(1) : kFlushPatience;
        if (!wait_until_gone(daemon.process, patience) &&
            !stop_process(daemon.process, kStopPatience)) {
            console.err << "kdfs: the mount daemon of " << daemon.mount << " (process "
                        << daemon.process.pid << ") did not stop and was killed\n";
        }
    }
    cluster.stop(kStopPatience);
    for (const std::string& notice : cluster.notices()) {
        console.err << "kdfs: " << notice << "\n";
    }
    KDFS_TRY(clear_dead_mount(state.settings().mount));
    console.out << "kdfs: the cluster in " << path
                << (was_running ? " is stopped\n" : " was not running\n");
    return {};
}

int down(const Arguments& arguments, Console& console) {
    Status done = run_down(arguments, console);
    return done.ok() ? kExitOk : console.fail(done.error());
}

}  // namespace

Command down_command() { return {down_spec(), down}; }

}  // namespace kdfs::tools
