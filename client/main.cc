// kdfs-fuse: mounts a kdfs cluster. Called as mount.kdfs it understands what mount(8) says.

#include "client/daemonize.h"
#include "client/file_client.h"
#include "client/fuse_bridge.h"
#include "client/mount_options.h"
#include "kdfs/base/spdlog_sink.h"
#include "kdfs/rt/cluster_key.h"
#include "kdfs/rt/real_env.h"

#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace kdfs::client {
namespace {

// How long the metadata server may take to answer at the start.
constexpr Duration kStartPatience = std::chrono::seconds(5);
// How long requests under way may take at the end.
constexpr Duration kEndPatience = std::chrono::seconds(10);

std::string base_name(const std::string& path) {
    size_t slash = path.rfind('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::string host_name() {
    char name[256] = {};
    gethostname(name, sizeof name - 1);
    return name;
}

bool is_mounted(const std::string& path) {
    std::ifstream mounts("/proc/self/mountinfo");
    std::string line;
    while (std::getline(mounts, line)) {
        std::istringstream words(line);
        std::string skipped;
        std::string where;
        words >> skipped >> skipped >> skipped >> skipped >> where;
        if (where == path) {
            return true;
        }
    }
    return false;
}

// The mount point as the kernel will name it.
Result<std::string> check_mount_point(const std::string& path) {
    std::error_code code;
    std::string real = std::filesystem::canonical(path, code);
    if (code) {
        return Error(errc_from_errno(code.value()),
                     "mount point " + path + ": " + code.message() + "; make the directory first");
    }
    if (is_mounted(real)) {
        return Error(Errc::kBusy,
                     "mount point " + real +
                         " is in use: something is mounted there already; unmount it first");
    }
    struct stat info {};
    if (stat(real.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
        return Error(Errc::kNotDirectory, "mount point " + real + " is not a directory");
    }
    return real;
}

// The whole life of a mount.
class Mount {
public:
    explicit Mount(MountOptions options) : options_(std::move(options)) {}
    ~Mount() {
        if (bridge_) {
            bridge_->drop_requests();
        }
    }

    Status prepare();
    Status run();

private:
    Task<void> serve();
    Task<Status> start();
    Task<void> finish();

    MountOptions options_;
    Daemonize background_;
    std::unique_ptr<LogSink> log_;
    std::unique_ptr<RealEnv> env_;
    std::unique_ptr<FuseBridge> bridge_;
    std::unique_ptr<FileClient> client_;
    Event stop_;
    Status outcome_;
    std::unique_ptr<TaskScope> scope_;
};

Status Mount::prepare() {
    KDFS_TRY_ASSIGN(options_.mount_point, check_mount_point(options_.mount_point));
    TcpTransportOptions transport;
    KDFS_TRY_ASSIGN(transport.key, load_cluster_key(options_.key_file));
    if (!options_.foreground) {
        KDFS_TRY_ASSIGN(background_, Daemonize::fork_and_wait());
    }
    LogOptions log;
    log.program = "kdfs-fuse";
    log.file = options_.log_file;
    KDFS_TRY_ASSIGN(log_, make_spdlog_sink(log));
    options_.client.name =
        host_name() + ":" + std::to_string(getpid()) + " " + options_.mount_point;
    if (options_.client.node_name.empty()) {
        options_.client.node_name = host_name();
    }
    transport.self.role = PeerRole::kClient;
    transport.self.name = "client " + host_name() + ":" + std::to_string(getpid());
    KDFS_TRY_ASSIGN(env_, RealEnv::create(*log_, std::move(transport)));
    KDFS_TRY(env_->reactor().handle_signals({SIGTERM, SIGINT}, [this](int) { stop_.set(); }));
    bridge_ = std::make_unique<FuseBridge>(env_->reactor(), *log_);
    client_ = std::make_unique<FileClient>(*env_, options_.client, bridge_.get());
    scope_ = std::make_unique<TaskScope>(env_->reactor());
    return {};
}

Status Mount::run() {
    scope_->spawn(serve());
    env_->reactor().run();
    return outcome_;
}

Task<Status> Mount::start() {
    Status opened = co_await client_->start(env_->now() + kStartPatience);
    if (!opened.ok()) {
        co_return Error(opened.error().code,
                        "cannot mount " + options_.mount_point + ": metadata server " +
                            options_.client.mds_address + ": " + opened.error().detail);
    }
    FuseMountOptions mount;
    mount.mount_point = options_.mount_point;
    mount.source = options_.client.mds_address;
    mount.read_only = options_.read_only;
    mount.io_uring = options_.io_uring;
    mount.extra = options_.system;
    Status mounted = bridge_->mount(mount, *client_);
    if (mounted.ok()) {
        background_.done();
    }
    co_return mounted;
}

Task<void> Mount::serve() {
    outcome_ = co_await start();
    if (outcome_.ok()) {
        scope_->spawn(finish());
        co_await bridge_->ended().wait();
        stop_.set();
        outcome_ = co_await client_->stop();
        bridge_->unmount();
    } else {
        Status ignored = co_await client_->stop();
        (void)ignored;
    }
    env_->reactor().stop();
}

// On a signal: answers what is under way, writes everything back, unmounts.
Task<void> Mount::finish() {
    co_await stop_.wait();
    if (bridge_->ended().is_set()) {
        co_return;
    }
    co_await bridge_->quiesce(env_->now() + kEndPatience);
    bridge_->ended().set();
}

int report(const Error& error) {
    std::fprintf(stderr, "kdfs-fuse: %s\n", error.to_string().c_str());
    return 1;
}

int run_mount(const std::vector<std::string>& words) {
    auto options = parse_mount_options(words);
    if (!options.ok()) {
        return report(options.error());
    }
    if (options->help) {
        std::fputs(mount_help().c_str(), stdout);
        return 0;
    }
    if (options->version) {
        std::printf("kdfs-fuse 0.1.0, libfuse %s\n", FuseBridge::library_version().c_str());
        return 0;
    }
    // Large buffers come and go all the time: keep their memory instead of asking for it again.
    constexpr int kKeepBelow = 32 << 20;
    mallopt(M_MMAP_THRESHOLD, kKeepBelow);
    mallopt(M_TRIM_THRESHOLD, 4 * kKeepBelow);
    mallopt(M_ARENA_MAX, 2);
    Mount mount(std::move(*options));
    Status prepared = mount.prepare();
    if (!prepared.ok()) {
        return report(prepared.error());
    }
    Status ended = mount.run();
    return ended.ok() ? 0 : report(ended.error());
}

// Becomes kdfs-fuse, so that its command line tells what is mounted where.
int run_helper(const std::vector<std::string>& words) {
    auto translated = from_mount_helper(words);
    if (!translated.ok()) {
        return report(translated.error());
    }
    std::string program = "kdfs-fuse";
    std::vector<char*> arguments = {program.data()};
    for (std::string& word : *translated) {
        arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    execv("/proc/self/exe", arguments.data());
    return report(errno_error(errno, "start kdfs-fuse"));
}

}  // namespace
}  // namespace kdfs::client

int main(int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    if (kdfs::client::base_name(argv[0]) == "mount.kdfs") {
        return kdfs::client::run_helper(words);
    }
    return kdfs::client::run_mount(words);
}
