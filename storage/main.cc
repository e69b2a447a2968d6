#include "kdfs/base/checksum.h"
#include "kdfs/base/config.h"
#include "kdfs/base/log.h"
#include "kdfs/base/spdlog_sink.h"
#include "kdfs/kv/rocks_kv.h"
#include "kdfs/rt/cluster_key.h"
#include "kdfs/rt/real_env.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/thread_offload.h"
#include "kdfs/rt/uring_disk.h"
#include "storage/server.h"
#include "storage/target_directory.h"

#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace kdfs::storage {
namespace {

struct Arguments {
    std::vector<std::string> dirs;
    std::vector<std::string> target_ids;
    uint64_t node_id = 0;
    uint64_t capacity = 0;
    uint64_t cache_bytes = 24 * MiB;
    Duration sync_interval = std::chrono::seconds(2);
    std::string key_file;
    std::string address_file;
    std::string log_file;
    std::string log_level = "info";
    bool encrypt = false;
    ServerOptions server;

    Arguments() { server.unix_listen = "auto"; }
};

void declare(Config& config, Arguments& a) {
    config.add_list("dir", &a.dirs, "directory of a target, made if it does not exist; repeatable");
    config.add_list("target-id", &a.target_ids, "number of the target in the --dir before it");
    config.add_number("node-id", &a.node_id, {0, UINT64_MAX}, "number of this node");
    config.add_text("name", &a.server.name, "name of this node");
    config.add_text("domain", &a.server.failure_domain, "nodes of one domain fail together");
    config.add_text("manager", &a.server.manager, "address of the cluster manager (kdfs-mds)");
    config.add_text("listen", &a.server.listen, "address to listen on; port 0: any");
    config.add_text("unix-listen",
                    &a.server.unix_listen,
                    "also listen here for peers on this machine: unix:/path, auto (beside the "
                    "address file), or none");
    config.add_text("advertise", &a.server.advertise, "address for peers; empty: as listened on");
    config.add_text("cluster-key", &a.key_file, "file with the key of the cluster");
    config.add_text("cluster-id", &a.server.cluster_id, "refuse directories of another cluster");
    config.add_bytes("capacity",
                     &a.capacity,
                     {0, UINT64_MAX},
                     "most bytes of data per target; 0: the disk less 1 GiB");
    config.add_bytes("cache",
                     &a.cache_bytes,
                     {MiB, uint64_t{1} << 40},
                     "memory for chunk records, per target, twice");
    config.add_duration("sync-interval",
                        &a.sync_interval,
                        "written data is on stable storage after this at the latest");
    config.add_flag("encrypt", &a.encrypt, "encrypt data connections too");
    config.add_text("address-file",
                    &a.address_file,
                    "where the address is written; empty: 'address' beside the first --dir");
    config.add_text("log-file", &a.log_file, "where log lines go; empty: standard error");
    config.add_text("log-level", &a.log_level, "debug, info, warn or error");
    config.require("dir");
    config.require("manager");
    config.require("cluster-key");
}

// The disk and the key-value store of one target.
struct Target {
    std::string directory;
    TargetIdentity identity;
    std::unique_ptr<UringDisk> disk;
    std::unique_ptr<RocksKv> kv;
};

Result<TargetIdentity> wanted_identity(const Arguments& a, size_t index) {
    TargetIdentity out;
    out.node = NodeId(a.node_id);
    out.cluster_id = a.server.cluster_id;
    if (index < a.target_ids.size()) {
        char* end = nullptr;
        out.target = TargetId(std::strtoull(a.target_ids[index].c_str(), &end, 10));
        if (!out.target || *end != '\0') {
            return Error(
                Errc::kInvalidArgument,
                "--target-id is '" + a.target_ids[index] + "' but must be a number from 1");
        }
    }
    return out;
}

Result<std::vector<Target>> find_targets(const Arguments& a) {
    std::vector<Target> out;
    for (size_t i = 0; i < a.dirs.size(); ++i) {
        Target target;
        target.directory = a.dirs[i];
        KDFS_TRY_ASSIGN(TargetIdentity wanted, wanted_identity(a, i));
        KDFS_TRY_ASSIGN(target.identity, open_target_directory(target.directory, wanted));
        out.push_back(std::move(target));
    }
    return out;
}

Status open_target(RealEnv& env, Offload& offload, const Arguments& a, Target& target) {
    KDFS_TRY_ASSIGN(target.disk, UringDisk::open_directory(env.reactor(), target.directory));
    RocksKvOptions options;
    options.block_cache_bytes = a.cache_bytes;
    options.write_buffer_bytes = 8 * MiB;
    KDFS_TRY_ASSIGN(target.kv, RocksKv::open(offload, target.directory + "/kv", options));
    return {};
}

// All directories are of one node and, as far as they know, one cluster.
Status agree(const std::vector<Target>& targets, ServerOptions& server) {
    for (const Target& target : targets) {
        const TargetIdentity& identity = target.identity;
        server.node = server.node ? server.node : identity.node;
        if (server.cluster_id.empty()) {
            server.cluster_id = identity.cluster_id;
        }
        bool same_cluster = identity.cluster_id.empty() || identity.cluster_id == server.cluster_id;
        if (identity.node != server.node || !same_cluster) {
            return Error(Errc::kWrongCluster,
                         target.directory + " belongs to another node or cluster than " +
                             targets.front().directory + "; start them as different daemons");
        }
    }
    if (server.name.empty()) {
        server.name = "storage-" + std::to_string(server.node.value);
    }
    return {};
}

// The program around the server: start, then serve until a signal.
class Daemon {
public:
    Daemon(RealEnv& env, std::vector<Target>& targets, std::string address_file)
        : env_(env),
          targets_(targets),
          address_file_(std::move(address_file)),
          scope_(env.scheduler()) {}

    Status run(Server& server) {
        server_ = &server;
        scope_.spawn(start());
        env_.reactor().run();
        return std::move(outcome_);
    }
    // The first call ends it in good order, later ones change nothing.
    void end(Status outcome) {
        if (server_ != nullptr && !std::exchange(ending_, true)) {
            outcome_ = std::move(outcome);
            scope_.spawn(stop());
        }
    }
    void remember_cluster(const std::string& cluster_id) {
        for (Target& target : targets_) {
            target.identity.cluster_id = cluster_id;
            Status stored = store_identity(target.directory, target.identity);
            if (!stored.ok()) {
                end(std::move(stored));
            }
        }
    }

private:
    Task<void> start() {
        Status started = co_await server_->start();
        if (started.ok()) {
            started = write_small_file(address_file_, server_->address() + "\n");
        }
        if (!started.ok()) {
            end(std::move(started));
        }
    }
    Task<void> stop() {
        co_await server_->stop();
        LogEvent(env_.log(), LogLevel::kInfo, "stopped");
        env_.reactor().stop();
    }

    RealEnv& env_;
    std::vector<Target>& targets_;
    std::string address_file_;
    Server* server_ = nullptr;
    bool ending_ = false;
    Status outcome_;
    TaskScope scope_;
};

std::string default_address_file(const std::string& directory) {
    size_t end = directory.find_last_not_of('/');
    size_t slash = end == std::string::npos ? std::string::npos : directory.rfind('/', end);
    return slash == std::string::npos ? "address" : directory.substr(0, slash) + "/address";
}

// A socket beside the address file, unless its path is too long for one.
std::string unix_address(const std::string& wanted, const std::string& address_file) {
    constexpr size_t kPathBytesMax = 100;
    if (wanted != "auto") {
        return wanted == "none" ? "" : wanted;
    }
    std::error_code ignored;
    std::filesystem::path path = std::filesystem::absolute(address_file, ignored);
    path = path.parent_path() / "socket";
    return ignored || path.string().size() > kPathBytesMax ? "" : "unix:" + path.string();
}

// Another number after each start of the machine, 0 if the kernel does not tell.
uint64_t boot_of_machine() {
    std::ifstream file("/proc/sys/kernel/random/boot_id");
    std::string id;
    std::getline(file, id);
    return id.empty() ? 0 : checksum(std::string_view(id));
}

Status serve(Arguments a, LogSink& log) {
    // The directories know the node if the command line does not name it.
    KDFS_TRY_ASSIGN(std::vector<Target> targets, find_targets(a));
    a.server.node = NodeId(a.node_id);
    KDFS_TRY(agree(targets, a.server));
    TcpTransportOptions transport;
    KDFS_TRY_ASSIGN(transport.key, load_cluster_key(a.key_file));
    transport.self.role = PeerRole::kStorage;
    transport.self.node = a.server.node;
    transport.self.name = "storage n" + std::to_string(a.server.node.value);
    transport.encrypt_data = a.encrypt;
    KDFS_TRY_ASSIGN(std::unique_ptr<RealEnv> env, RealEnv::create(log, std::move(transport)));
    constexpr size_t kThreads = 3;
    ThreadOffload offload(env->reactor(), kThreads);
    std::string address_file =
        a.address_file.empty() ? default_address_file(a.dirs.front()) : a.address_file;
    Daemon daemon(*env, targets, address_file);
    KDFS_TRY(
        env->reactor().handle_signals({SIGTERM, SIGINT}, [&daemon](int) { daemon.end(Status()); }));
    std::vector<TargetOptions> options;
    for (Target& target : targets) {
        KDFS_TRY(open_target(*env, offload, a, target));
        TargetOptions one;
        one.disk = target.disk.get();
        one.kv = target.kv.get();
        one.store.target = target.identity.target;
        one.store.capacity_bytes = a.capacity;
        one.store.cache_bytes = a.cache_bytes;
        one.store.sync_interval = a.sync_interval;
        options.push_back(one);
    }
    a.server.boot = boot_of_machine();
    a.server.unix_listen = unix_address(a.server.unix_listen, address_file);
    a.server.hooks.on_cluster = [&daemon](const std::string& id) { daemon.remember_cluster(id); };
    a.server.hooks.on_refused = [&daemon](Error why) { daemon.end(Status(std::move(why))); };
    Server server(*env, std::move(options), std::move(a.server));
    Status outcome = daemon.run(server);
    ::unlink(address_file.c_str());
    return outcome;
}

int run(int argc, char** argv) {
    Arguments arguments;
    Config config("kdfs-storage", "The storage daemon of one kdfs node: keeps and serves chunks.");
    declare(config, arguments);
    auto text = config.parse(argc, argv);
    if (!text.ok()) {
        std::fprintf(stderr, "kdfs-storage: %s\n", text.error().detail.c_str());
        return 2;
    }
    if (*text) {
        std::printf("%s", (*text)->c_str());
        return 0;
    }
    LogOptions log_options;
    log_options.program = "kdfs-storage";
    log_options.file = arguments.log_file;
    auto level = parse_log_level(arguments.log_level);
    if (level.ok()) {
        log_options.level = *level;
    }
    auto log = make_spdlog_sink(log_options);
    if (!level.ok() || !log.ok()) {
        const Error& why = level.ok() ? log.error() : level.error();
        std::fprintf(stderr, "kdfs-storage: %s\n", why.detail.c_str());
        return 2;
    }
    Status outcome = serve(std::move(arguments), **log);
    if (!outcome.ok()) {
        LogEvent(**log, LogLevel::kError, "kdfs-storage ends")
            .with("cause", outcome.error().to_string());
        return 1;
    }
    return 0;
}

}  // namespace
}  // namespace kdfs::storage

int main(int argc, char** argv) { return kdfs::storage::run(argc, argv); }
