#include "kdfs/base/types.h"
#include "tools/command.h"
#include "tools/files.h"
#include "tools/local_cluster.h"
#include "tools/mounts.h"

#include <sys/stat.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

namespace kdfs::tools {

namespace {

constexpr uint64_t kPortMin = 1024;
// Left free for the metadata and everything else.
constexpr uint64_t kSpaceKept = 1 * GiB;

CommandSpec up_spec() {
    CommandSpec spec;
    spec.name = "up";
    spec.summary = "Run a cluster on this machine and mount it";
    spec.details =
        "Makes the state directory with a new cluster key, starts a metadata server, the storage "
        "daemons and the mount, and returns when files can be written. On a directory that has a "
        "cluster already, it starts what does not run, with its data; --mount may then be left "
        "out. If a storage daemon then fails and the others have a copy of everything, these go "
        "on and the exit status is 1. Everything listens on 127.0.0.1 only.";
    spec.options = {{"dir", "STATE", "where the cluster keeps its data (default: $KDFS_DIR)"},
                    {"mount", "PATH", "where to mount it; made if it is not there"},
                    {"nodes", "N", "storage daemons (default 3)"},
                    {"replicas", "N", "copies of each chunk, at most one per node (default 2)"},
                    {"targets-per-node",
                     "N",
                     "directories that each storage daemon keeps chunks in "
                     "(default 1)"},
                    {"port",
                     "BASE",
                     "listen on port BASE, and the storage daemons on BASE+1 and so on "
                     "(default: any free ports)"},
                    {"timeout", "SECONDS", "give up after this time (default 30)"}};
    spec.examples = {"kdfs up --dir /var/tmp/k1 --mount /kdfs", "kdfs up --dir /var/tmp/k1"};
    return spec;
}

// What the command line asks for; what it does not name is as stored, or the default.
Result<ClusterSettings> wanted_settings(const Arguments& arguments, ClusterSettings base) {
    KDFS_TRY_ASSIGN(base.nodes,
                    arguments.number("nodes", base.nodes, {1, ClusterSettings::kNodesMax}));
    KDFS_TRY_ASSIGN(base.replicas, arguments.number("replicas", base.replicas, {1, kReplicasMax}));
    KDFS_TRY_ASSIGN(base.targets_per_node,
                    arguments.number("targets-per-node",
                                     base.targets_per_node,
                                     {1, ClusterSettings::kTargetsPerNodeMax}));
    KDFS_TRY_ASSIGN(base.port_base,
                    arguments.number("port", base.port_base, {kPortMin, UINT16_MAX - base.nodes}));
    if (base.replicas > base.nodes) {
        return Error(Errc::kInvalidArgument,
                     "--replicas " + std::to_string(base.replicas) + " needs as many nodes, but " +
                         "--nodes is " + std::to_string(base.nodes) +
                         "; give more nodes or fewer replicas");
    }
    return base;
}

Status check_same(const StateDir& state, const ClusterSettings& wanted) {
    const ClusterSettings& stored = state.settings();
    struct Field {
        const char* option;
        uint64_t stored;
        uint64_t wanted;
    };
    const Field fields[] = {{"nodes", stored.nodes, wanted.nodes},
                            {"replicas", stored.replicas, wanted.replicas},
                            {"targets-per-node", stored.targets_per_node, wanted.targets_per_node}};
    for (const Field& field : fields) {
        if (field.stored != field.wanted) {
            return Error(Errc::kInvalidArgument,
                         "the cluster in " + state.path() + " was made with --" + field.option +
                             " " + std::to_string(field.stored) + ", not " +
                             std::to_string(field.wanted) + "; leave --" + field.option +
                             " out to start it as it is, or give another --dir");
        }
    }
    return {};
}

// The path as the kernel writes it in its list of mounts, whether or not its last part exists.
std::string resolve_mount(const std::string& path) {
    std::string plain = absolute_path(path);
    if (mount_at(plain)) {
        return plain;
    }
    size_t slash = plain.rfind('/');
    std::string parent = slash == 0 ? "/" : plain.substr(0, slash);
    std::unique_ptr<char, decltype(&std::free)> real(realpath(parent.c_str(), nullptr), std::free);
    if (!real) {
        return plain;
    }
    std::string joined = real.get();
    joined = (joined == "/" ? "" : joined) + plain.substr(slash);
    struct stat info {};
    bool link = !mount_at(joined) && lstat(joined.c_str(), &info) == 0 && S_ISLNK(info.st_mode);
    if (link) {
        real.reset(realpath(joined.c_str(), nullptr));
        return real ? std::string(real.get()) : joined;
    }
    return joined;
}

// Makes sure that the file system can be mounted at `path`. A mount that a killed kdfs-fuse left
// behind there is taken away.
Status prepare_mount_point(const std::string& path) {
    std::optional<Mount> mount = mount_at(path);
    if (mount && mount->is_kdfs()) {
        // Its daemon is gone when the kernel answers at once that nobody is connected.
        Status answer = probe_mount(path, std::chrono::seconds(2));
        if (!answer.ok() && answer.error().code != Errc::kTimeout) {
            KDFS_TRY(unmount(path, Unmount::kLazy));
            mount = mount_at(path);
        }
    }
    if (mount) {
        return Error(Errc::kBusy,
                     "the mount point " + path + " is in use: " + mount->source + " (" +
                         mount->type + ") is mounted there; unmount it (umount " + path +
                         "), or give another --mount");
    }
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) {
        if (errno != ENOENT) {
            return errno_error(errno, "mount point " + path);
        }
        Status made = make_directory(path, 0755);
        if (!made.ok()) {
            return Error(made.error().code,
                         "the mount point " + path + " cannot be made (" + made.error().detail +
                             "); make it yourself (mkdir -p " + path +
                             "), or give another --mount");
        }
        return {};
    }
    if (!S_ISDIR(info.st_mode)) {
        return Error(Errc::kNotDirectory,
                     "the mount point " + path + " is not a directory; give another --mount");
    }
    if (!list_directory(path).empty()) {
        return Error(Errc::kNotEmpty,
                     "the mount point " + path +
                         " has files in it, which the mount would hide; give an empty directory");
    }
    return {};
}

Status check_programs() {
    for (const char* name : {"kdfs-mds", "kdfs-storage", "kdfs-fuse"}) {
        KDFS_TRY_ASSIGN(std::string program, find_program(name));
    }
    return {};
}

// All targets lie on one disk: each may take its share of what is free now, so that the sum that
// df shows is true.
uint64_t share_of_disk(const std::string& path, uint64_t targets) {
    uint64_t free_bytes = free_space(path).free_bytes;
    uint64_t usable = free_bytes > 2 * kSpaceKept ? free_bytes - kSpaceKept : free_bytes / 2;
    return usable / targets;
}

Result<StateDir> open_or_create(const Arguments& arguments, const std::string& path) {
    Result<StateDir> state = StateDir::open(path);
    if (!state.ok() && state.error().code != Errc::kNotFound) {
        return state;
    }
    ClusterSettings base = state.ok() ? state->settings() : ClusterSettings();
    KDFS_TRY_ASSIGN(ClusterSettings wanted, wanted_settings(arguments, base));
    if (arguments.has("mount")) {
        wanted.mount = resolve_mount(arguments.get("mount"));
    }
    if (wanted.mount.empty()) {
        return Error(Errc::kInvalidArgument, "kdfs up lacks --mount PATH; see kdfs up --help");
    }
    if (path_within(wanted.mount, path) || path_within(path, wanted.mount)) {
        return Error(Errc::kInvalidArgument,
                     "--dir " + path + " and --mount " + wanted.mount +
                         " lie within each other; give separate places");
    }
    if (!state.ok()) {
        KDFS_TRY(check_programs());
        KDFS_TRY(prepare_mount_point(wanted.mount));
        wanted.capacity_bytes = share_of_disk(path, wanted.nodes * wanted.targets_per_node);
        return StateDir::create(path, wanted);
    }
    KDFS_TRY(check_same(*state, wanted));
    return state;
}

// Takes over what may change between two starts.
Status apply_changes(const Arguments& arguments, StateDir& state, const LocalCluster& cluster) {
    ClusterSettings settings = state.settings();
    if (arguments.has("mount")) {
        settings.mount = resolve_mount(arguments.get("mount"));
    }
    KDFS_TRY_ASSIGN(settings.port_base,
                    arguments.number("port", settings.port_base, {kPortMin, UINT16_MAX}));
    bool same = settings.mount == state.settings().mount &&
                settings.port_base == state.settings().port_base;
    if (same) {
        return {};
    }
    if (cluster.not_running().size() < cluster.daemon_names().size()) {
        return Error(Errc::kBusy,
                     "the cluster in " + state.path() + " is running, mounted at " +
                         state.settings().mount + "; stop it first: kdfs down --dir " +
                         state.path());
    }
    return state.save(settings);
}

// The error of a cluster that runs without some of its storage daemons.
Status tell_failed(const LocalCluster& cluster, const StateDir& state, Console& console) {
    if (cluster.failed().empty()) {
        return {};
    }
    std::string names;
    for (const auto& [daemon, why] : cluster.failed()) {
        console.err << "kdfs: " << why << "\n";
        names += (names.empty() ? "" : ", ") + daemon;
    }
    return Error(Errc::kIo,
                 "the cluster runs without " + names + "; what that means: kdfs status --dir " +
                     state.path());
}

Status run_up(const Arguments& arguments, Console& console) {
    auto begin = LocalCluster::Clock::now();
    KDFS_TRY_ASSIGN(std::string path, state_path(arguments, "up"));
    KDFS_TRY_ASSIGN(uint64_t timeout, arguments.number("timeout", 30, {1, 3600}));
    KDFS_TRY_ASSIGN(StateDir state, open_or_create(arguments, path));
    KDFS_TRY_ASSIGN(StateLock lock, StateLock::take(state));
    LocalCluster cluster(state);
    cluster.wait_for_killed();
    KDFS_TRY(apply_changes(arguments, state, cluster));
    std::vector<std::string> missing = cluster.not_running();
    const std::string& mount = state.settings().mount;
    if (missing.empty() && mount_at(mount)) {
        console.out << "kdfs: the cluster in " << path << " is already running, mounted at "
                    << mount << "\n";
        return {};
    }
    if (!missing.empty() && missing.back() == "mount") {
        KDFS_TRY(prepare_mount_point(mount));
    }
    Status started = cluster.start(std::chrono::seconds(timeout));
    for (const std::string& notice : cluster.notices()) {
        console.err << "kdfs: " << notice << "\n";
    }
    KDFS_TRY(std::move(started));
    auto took =
        std::chrono::duration_cast<std::chrono::milliseconds>(LocalCluster::Clock::now() - begin);
    uint64_t nodes = state.settings().nodes - cluster.failed().size();
    console.out << "kdfs: " << counted(nodes, "storage daemon") << ", " << state.settings().replicas
                << " copies of each chunk; mounted at " << mount << " after " << took.count()
                << " ms\n";
    return tell_failed(cluster, state, console);
}

int up(const Arguments& arguments, Console& console) {
    Status done = run_up(arguments, console);
    return done.ok() ? kExitOk : console.fail(done.error());
}

}  // namespace

Command up_command() { return {up_spec(), up}; }

}  // namespace kdfs::tools
