#include "kdfs/base/config.h"
#include "kdfs/base/log.h"
#include "kdfs/base/spdlog_sink.h"
#include "kdfs/kv/rocks_kv.h"
#include "kdfs/rt/cluster_key.h"
#include "kdfs/rt/real_env.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/thread_offload.h"
#include "mds/server.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace kdfs::mds {
namespace {

struct Arguments {
    std::string dir;
    std::string key_file;
    std::string log_file;
    std::string log_level = "info";
    uint64_t replicas = 0;
    uint64_t cache_bytes = 64 * MiB;
    bool encrypt = false;
    Options server;
};

void declare(Config& config, Arguments& a) {
    config.add_text("dir", &a.dir, "directory of the metadata; made if it does not exist");
    config.add_text("listen", &a.server.address, "address to listen on; port 0: any");
    config.add_text("cluster-key", &a.key_file, "file with the key of the cluster");
    config.add_text("cluster-id", &a.server.cluster_id, "refuse a directory of another cluster");
    config.add_number("expected-nodes",
                      &a.server.expected_nodes,
                      {1, 4096},
                      "storage nodes that must report before the first file can be stored");
    config.add_number("replicas",
                      &a.replicas,
                      {0, kReplicasMax},
                      "copies of new files in a new cluster; 0: two where there are two nodes");
    config.add_duration("lease", &a.server.session_lease, "lease of a client's session");
    config.add_duration("node-lease", &a.server.node_lease, "lease of a storage daemon");
    config.add_duration("sync-interval",
                        &a.server.sync_interval,
                        "changes are on stable storage after this at the latest");
    config.add_bytes("cache", &a.cache_bytes, {MiB, uint64_t{1} << 40}, "memory for metadata");
    config.add_flag("encrypt", &a.encrypt, "encrypt data connections too");
    config.add_text("log-file", &a.log_file, "where log lines go; empty: standard error");
    config.add_text("log-level", &a.log_level, "debug, info, warn or error");
    config.require("dir");
    config.require("cluster-key");
}

// Writes the file whole or not at all.
Status write_file(const std::string& path, const std::string& text) {
    std::string fresh = path + ".new";
    int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno_error(errno, "open " + fresh);
    }
    bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    int why = written ? 0 : errno;
    ::close(fd);
    if (!written || ::rename(fresh.c_str(), path.c_str()) != 0) {
        return errno_error(why != 0 ? why : errno, "write " + path);
    }
    return {};
}

// The program around the server: start, then serve until a signal.
class Daemon {
public:
    Daemon(RealEnv& env, Server& server, std::string address_file)
        : env_(env),
          server_(server),
          address_file_(std::move(address_file)),
          scope_(env.scheduler()) {}

    // Returns when the program is to end.
    Status run() {
        scope_.spawn(start());
        env_.reactor().run();
        return std::move(outcome_);
    }
    // The first signal ends it in good order, later ones change nothing.
    void end() {
        if (!std::exchange(ending_, true)) {
            scope_.spawn(stop());
        }
    }

private:
    Task<void> start() {
        outcome_ = co_await server_.start();
        if (outcome_.ok()) {
            outcome_ = write_file(address_file_, server_.address() + "\n");
        }
        if (!outcome_.ok()) {
            end();
            co_return;
        }
        LogEvent(env_.log(), LogLevel::kInfo, "ready").with("address", server_.address());
    }
    Task<void> stop() {
        ::unlink(address_file_.c_str());
        Status stopped = co_await server_.stop();
        if (outcome_.ok()) {
            outcome_ = std::move(stopped);
        }
        LogEvent(env_.log(), LogLevel::kInfo, "stopped");
        env_.reactor().stop();
    }

    RealEnv& env_;
    Server& server_;
    std::string address_file_;
    bool ending_ = false;
    Status outcome_;
    TaskScope scope_;
};

Status serve(Arguments arguments, LogSink& log) {
    if (::mkdir(arguments.dir.c_str(), 0700) != 0 && errno != EEXIST) {
        return errno_error(errno, "make directory " + arguments.dir);
    }
    TcpTransportOptions transport;
    KDFS_TRY_ASSIGN(transport.key, load_cluster_key(arguments.key_file));
    transport.self.role = PeerRole::kMds;
    transport.self.name = "mds";
    transport.encrypt_data = arguments.encrypt;
    KDFS_TRY_ASSIGN(std::unique_ptr<RealEnv> env, RealEnv::create(log, std::move(transport)));
    Daemon* daemon = nullptr;
    KDFS_TRY(env->reactor().handle_signals({SIGTERM, SIGINT}, [&daemon](int) {
        if (daemon != nullptr) {
            daemon->end();
        }
    }));
    constexpr size_t kThreads = 4;
    ThreadOffload offload(env->reactor(), kThreads);
    RocksKvOptions store_options;
    store_options.block_cache_bytes = arguments.cache_bytes;
    KDFS_TRY_ASSIGN(std::unique_ptr<RocksKv> store,
                    RocksKv::open(offload, arguments.dir + "/meta", store_options));
    if (arguments.replicas != 0) {
        arguments.server.root_policy.set_replicas(static_cast<uint32_t>(arguments.replicas));
    }
    Server server(*env, *store, arguments.server);
    Daemon running(*env, server, arguments.dir + "/address");
    daemon = &running;
    Status outcome = running.run();
    daemon = nullptr;
    return outcome;
}

int run(int argc, char** argv) {
    Arguments arguments;
    Config config("kdfs-mds", "The metadata server and cluster manager of kdfs.");
    declare(config, arguments);
    auto text = config.parse(argc, argv);
    if (!text.ok()) {
        std::fprintf(stderr, "kdfs-mds: %s\n", text.error().detail.c_str());
        return 2;
    }
    if (*text) {
        std::printf("%s", (*text)->c_str());
        return 0;
    }
    LogOptions log_options;
    log_options.program = "kdfs-mds";
    log_options.file = arguments.log_file;
    auto level = parse_log_level(arguments.log_level);
    if (level.ok()) {
        log_options.level = *level;
    }
    auto log = make_spdlog_sink(log_options);
    if (!level.ok() || !log.ok()) {
        const Error& why = level.ok() ? log.error() : level.error();
        std::fprintf(stderr, "kdfs-mds: %s\n", why.detail.c_str());
        return 2;
    }
    Status outcome = serve(std::move(arguments), **log);
    if (!outcome.ok()) {
        LogEvent(**log, LogLevel::kError, "kdfs-mds ends")
            .with("cause", outcome.error().to_string());
        return 1;
    }
    return 0;
}

}  // namespace
}  // namespace kdfs::mds

int main(int argc, char** argv) { return kdfs::mds::run(argc, argv); }
