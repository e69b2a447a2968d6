#include "tools/local_cluster.h"

#include "kdfs/proto/meta.pb.h"
#include "tools/arguments.h"
#include "tools/files.h"
#include "tools/mounts.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <thread>

namespace kdfs::tools {

namespace {

constexpr size_t kLogLinesShown = 5;
constexpr auto kPoll = std::chrono::milliseconds(5);
// How long `up` waits for returned members to catch up before it says so and leaves them to it.
constexpr auto kSyncPatience = std::chrono::seconds(10);
// See wait_for_killed.
constexpr auto kEndPatience = std::chrono::seconds(10);
// How long `up` waits for a port whose last owner may still be ending, whoever that was.
constexpr auto kPortPatience = std::chrono::seconds(2);
// How long what was started is given to stop after a failure.
constexpr auto kStopPatience = std::chrono::seconds(5);

bool is_storage(const std::string& daemon) { return daemon.starts_with("storage-"); }

std::string program_of(const std::string& daemon) {
    if (daemon == "mds") {
        return "kdfs-mds";
    }
    return is_storage(daemon) ? "kdfs-storage" : "kdfs-fuse";
}

// Splits "host:port"; 0 if there is no port.
uint16_t port_of(const std::string& address) {
    size_t colon = address.rfind(':');
    if (colon == std::string::npos) {
        return 0;
    }
    Result<uint64_t> port = parse_number(address.substr(colon + 1), "port", {0, UINT16_MAX});
    return port.ok() ? static_cast<uint16_t>(*port) : uint16_t{0};
}

Status wait_for_port(const std::string& address) {
    auto deadline = LocalCluster::Clock::now() + kPortPatience;
    for (;;) {
        Status free = check_port_free(address);
        if (free.ok() || LocalCluster::Clock::now() >= deadline) {
            return free;
        }
        std::this_thread::sleep_for(kPoll);
    }
}

}  // namespace

Status check_port_free(const std::string& address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno_error(errno, "make a socket for " + address);
    }
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(port_of(address));
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int done = bind(fd, reinterpret_cast<const sockaddr*>(&where), sizeof where);
    int code = errno;
    if (done == 0) {
        done = listen(fd, 1);
        code = errno;
    }
    close(fd);
    if (done != 0 && code == EADDRINUSE) {
        return Error(Errc::kBusy,
                     "port " + std::to_string(port_of(address)) + " (" + address +
                         ") is taken by another process; see who has it with: ss -ltnp 'sport = :" +
                         std::to_string(port_of(address)) + "', or give another --port");
    }
    if (done != 0) {
        return errno_error(code, "listen on " + address);
    }
    return {};
}

std::vector<std::string> LocalCluster::storage_names() const {
    std::vector<std::string> names;
    for (uint64_t i = 1; i <= state_.settings().nodes; ++i) {
        names.push_back("storage-" + std::to_string(i));
    }
    return names;
}

std::vector<std::string> LocalCluster::daemon_names() const {
    std::vector<std::string> names = storage_names();
    names.insert(names.begin(), "mds");
    names.emplace_back("mount");
    return names;
}

std::optional<ProcessId> LocalCluster::running(const std::string& daemon) const {
    Result<std::optional<ProcessId>> process = read_pid_file(state_.pid_file(daemon));
    if (!process.ok() || !process->has_value() || !alive(**process)) {
        return std::nullopt;
    }
    return *process;
}

std::vector<std::string> LocalCluster::not_running() const {
    std::vector<std::string> names;
    for (const std::string& name : daemon_names()) {
        if (!running(name)) {
            names.push_back(name);
        }
    }
    return names;
}

Status LocalCluster::start(std::chrono::milliseconds patience) {
    Clock::time_point deadline = Clock::now() + patience;
    Status done = start_daemons(deadline);
    if (done.ok()) {
        done = wait_for_storage(deadline);
    }
    if (done.ok()) {
        done = wait_for_chains(deadline);
    }
    if (done.ok()) {
        done = wait_for_mount(deadline);
    }
    if (!done.ok()) {
        stop_started();
    }
    return done;
}

void LocalCluster::wait_for_killed() const {
    for (const std::string& name : daemon_names()) {
        std::optional<ProcessId> process = running(name);
        if (process && ending(*process)) {
            wait_until_gone(*process, kEndPatience);
        }
    }
}

Status LocalCluster::start_daemons(Clock::time_point deadline) {
    const ClusterSettings& settings = state_.settings();
    std::string key = state_.key_file();
    if (!running("mds")) {
        KDFS_TRY_ASSIGN(std::string listen, listen_address("mds", 0));
        KDFS_TRY(start_one("mds",
                           {"--dir",
                            state_.data_dir("mds"),
                            "--listen",
                            listen,
                            "--cluster-key",
                            key,
                            "--expected-nodes",
                            std::to_string(settings.nodes),
                            "--replicas",
                            std::to_string(settings.replicas)}));
    }
    KDFS_TRY_ASSIGN(std::string mds, wait_for_address("mds", deadline));
    KDFS_TRY(end_dead_mount(mds));
    for (uint64_t node = 1; node <= settings.nodes; ++node) {
        std::string name = "storage-" + std::to_string(node);
        if (running(name)) {
            continue;
        }
        KDFS_TRY_ASSIGN(std::string listen, listen_address(name, node));
        std::vector<std::string> arguments = {"--name",
                                              name,
                                              "--node-id",
                                              std::to_string(node),
                                              "--manager",
                                              mds,
                                              "--listen",
                                              listen,
                                              "--cluster-key",
                                              key,
                                              "--capacity",
                                              std::to_string(settings.capacity_bytes)};
        for (uint64_t i = 0; i < settings.targets_per_node; ++i) {
            uint64_t target = (node - 1) * settings.targets_per_node + i + 1;
            arguments.insert(arguments.end(),
                             {"--dir",
                              state_.data_dir(name) + "/t" + std::to_string(target),
                              "--target-id",
                              std::to_string(target)});
        }
        KDFS_TRY(start_one(name, arguments));
    }
    if (running("mount") && !mount_at(settings.mount)) {
        // It was unmounted behind our back and is about to end.
        stop_group({"mount"}, kStopPatience);
    }
    if (!running("mount")) {
        KDFS_TRY(start_one(
            "mount",
            {"--mds", mds, "--cluster-key", key, "--mount", settings.mount, "--foreground"}));
    }
    return {};
}

Status LocalCluster::end_dead_mount(const std::string& mds) {
    KDFS_TRY_ASSIGN(std::optional<ProcessId> before, read_pid_file(state_.pid_file("mount")));
    if (!before || alive(*before)) {
        return {};
    }
    KDFS_TRY_ASSIGN(std::unique_ptr<ClusterLink> link, ClusterLink::open(state_.key_file()));
    std::array<char, HOST_NAME_MAX + 1> host{};
    gethostname(host.data(), host.size() - 1);
    pb::EndSessionRequest request;
    // As kdfs-fuse names its session.
    request.set_name(std::string(host.data()) + ":" + std::to_string(before->pid) + " " +
                     state_.settings().mount);
    Result<pb::EndSessionReply> reply =
        link->ask<pb::EndSessionReply>(mds, MessageType::kEndSession, request);
    if (!reply.ok()) {
        // Its lease ends it too, only later.
        notices_.push_back("the session of the mount that was killed could not be ended: " +
                           reply.error().to_string());
    }
    return {};
}

Status LocalCluster::start_one(const std::string& daemon, std::vector<std::string> arguments) {
    KDFS_TRY_ASSIGN(std::string program, find_program(program_of(daemon)));
    if (daemon != "mount") {
        KDFS_TRY(make_directory(state_.data_dir(daemon), 0700));
        unlink(state_.address_file(daemon).c_str());
    }
    DaemonSpec spec;
    spec.program = program;
    spec.arguments = std::move(arguments);
    spec.log_path = state_.log_file(daemon);
    Result<ProcessId> process = start_daemon(spec);
    if (!process.ok()) {
        return with_log(daemon, process.error().detail);
    }
    started_.push_back(daemon);
    return write_pid_file(state_.pid_file(daemon), *process);
}

Result<std::string> LocalCluster::listen_address(const std::string& daemon, uint64_t index) const {
    uint64_t base = state_.settings().port_base;
    if (base != 0) {
        std::string address = "127.0.0.1:" + std::to_string(base + index);
        KDFS_TRY(wait_for_port(address));
        return address;
    }
    // Peers that still run look for it where it was.
    Result<std::string> before = state_.address(daemon);
    if (!before.ok() || port_of(*before) == 0) {
        return std::string("127.0.0.1:0");
    }
    Status free = wait_for_port(*before);
    if (free.ok()) {
        return *before;
    }
    bool peers_run = not_running().size() < daemon_names().size();
    if (daemon == "mds" && peers_run) {
        return free.error();
    }
    return std::string("127.0.0.1:0");
}

Status LocalCluster::check_alive(const std::string& daemon) {
    if (running(daemon) || failed_.contains(daemon)) {
        return {};
    }
    Error why = with_log(daemon, "it stopped while the cluster was starting");
    // A new cluster takes none less than it was asked for.
    bool new_cluster = state_.settings().cluster_id.empty();
    if (!is_storage(daemon) || new_cluster) {
        return why;
    }
    failed_[daemon] = why.detail;
    return {};
}

Error LocalCluster::with_log(const std::string& daemon, const std::string& what) const {
    std::string text = program_of(daemon) + " (" + daemon + ") failed: " + what;
    std::string log = state_.log_file(daemon);
    std::vector<std::string> lines = last_lines(log, kLogLinesShown);
    if (!lines.empty()) {
        text += "\n  the last lines of " + log + ":";
        for (const std::string& line : lines) {
            text += "\n    " + line;
        }
    }
    text += "\n  mend the cause, then run again: kdfs up --dir " + state_.path() +
            "   (kdfs doctor looks for common causes)";
    return Error(Errc::kIo, text);
}

Result<std::string> LocalCluster::wait_for_address(const std::string& daemon,
                                                   Clock::time_point deadline) {
    for (;;) {
        Result<std::string> address = state_.address(daemon);
        if (address.ok() && !address->empty()) {
            return address;
        }
        KDFS_TRY(check_alive(daemon));
        if (failed_.contains(daemon)) {
            return std::string();
        }
        if (Clock::now() >= deadline) {
            return with_log(daemon, "it did not begin to listen in time");
        }
        std::this_thread::sleep_for(kPoll);
    }
}

// A daemon that cannot open its store ends before it listens. Until the manager notices, the chains
// look as before, so that they alone do not tell.
Status LocalCluster::wait_for_storage(Clock::time_point deadline) {
    for (const std::string& daemon : started_) {
        if (daemon != "mount") {
            KDFS_TRY(wait_for_address(daemon, deadline));
        }
    }
    return {};
}

Status LocalCluster::wait_for_chains(Clock::time_point deadline) {
    KDFS_TRY_ASSIGN(std::unique_ptr<ClusterLink> link, ClusterLink::open(state_.key_file()));
    KDFS_TRY_ASSIGN(std::string mds, state_.address("mds"));
    StatusContext context;
    context.mds_address = mds;
    context.state_dir = state_.path();
    context.nodes_expected = state_.settings().nodes;
    Clock::time_point sync_deadline = std::min(deadline, Clock::now() + kSyncPatience);
    for (;;) {
        for (const std::string& daemon : daemon_names()) {
            KDFS_TRY(check_alive(daemon));
        }
        Result<pb::StatusReply> reply = link->ask<pb::StatusReply>(mds,
                                                                   MessageType::kStatus,
                                                                   pb::StatusRequest(),
                                                                   std::chrono::seconds(2));
        Clock::time_point now = Clock::now();
        if (!reply.ok() &&
            (now >= deadline || error_class(reply.error().code) == ErrorClass::kFatal)) {
            return with_log("mds", "it does not answer: " + reply.error().to_string());
        }
        if (reply.ok()) {
            StatusView view = judge_status(*reply, context);
            if (is_ready(view, now < sync_deadline)) {
                return check_cluster_id(reply->map().cluster_id());
            }
            if (now >= deadline) {
                return not_ready(view);
            }
        }
        std::this_thread::sleep_for(kPoll);
    }
}

bool LocalCluster::is_ready(const StatusView& view, bool patient) {
    // Chains with fewer copies than usual may have had all of them on one node.
    uint64_t down = view.chains.down + (failed_.empty() ? view.chains.thin_down : 0);
    if (view.chains.total == 0 || down != 0 || view.nodes_silent != 0) {
        return false;
    }
    bool as_complete_as_it_gets = view.chains.full == view.chains.total || !failed_.empty();
    if (!as_complete_as_it_gets && !patient) {
        notices_.push_back(
            "not every chunk has all its copies yet; to see why: kdfs status --dir " +
            state_.path());
    }
    return as_complete_as_it_gets || !patient;
}

Error LocalCluster::not_ready(const StatusView& view) const {
    std::string text;
    for (const auto& [daemon, why] : failed_) {
        text += why + "\n";
    }
    text += "the storage daemons were not ready in time:";
    for (const Problem& problem : view.problems) {
        text += "\n  " + problem.what + ": " + problem.cause;
    }
    return Error(Errc::kTimeout, text + "\n  their logs are in " + state_.path() + "/log");
}

Status LocalCluster::check_cluster_id(const std::string& id) {
    ClusterSettings settings = state_.settings();
    if (settings.cluster_id == id) {
        return {};
    }
    if (!settings.cluster_id.empty()) {
        return Error(Errc::kWrongCluster,
                     state_.path() + "/mds holds cluster " + id + ", but " + state_.path() +
                         " belongs to cluster " + settings.cluster_id +
                         "; put the mds directory of that cluster back");
    }
    settings.cluster_id = id;
    return state_.save(settings);
}

Status LocalCluster::wait_for_mount(Clock::time_point deadline) {
    const std::string& path = state_.settings().mount;
    for (;;) {
        std::optional<Mount> mount = mount_at(path);
        if (mount && mount->is_kdfs()) {
            break;
        }
        KDFS_TRY(check_alive("mount"));
        if (Clock::now() >= deadline) {
            return with_log("mount", "the mount at " + path + " did not appear in time");
        }
        std::this_thread::sleep_for(kPoll);
    }
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    Status answer = probe_mount(path, std::max(left, std::chrono::milliseconds(1000)));
    if (!answer.ok()) {
        return with_log("mount", answer.error().detail);
    }
    return {};
}

void LocalCluster::stop(std::chrono::milliseconds patience) {
    std::vector<std::string> storage = storage_names();
    stop_group({"mount"}, patience);
    stop_group({"mds"}, patience);
    stop_group(storage, patience);
}

// Side by side, so that the wait is the longest and not the sum.
void LocalCluster::stop_group(const std::vector<std::string>& daemons,
                              std::chrono::milliseconds patience) {
    for (const std::string& daemon : daemons) {
        std::optional<ProcessId> process = running(daemon);
        if (process) {
            kill(process->pid, SIGTERM);
        }
    }
    Clock::time_point deadline = Clock::now() + patience;
    for (const std::string& daemon : daemons) {
        std::optional<ProcessId> process = running(daemon);
        if (process) {
            auto left =
                std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
            if (!stop_process(*process, std::max(left, std::chrono::milliseconds(0)))) {
                notices_.push_back(
                    daemon + " (process " + std::to_string(process->pid) +
                    ") did not stop by itself and was killed; its log: " + state_.log_file(daemon));
            }
        }
        if (daemon != "mount") {
            // The mount's says at the next start whose session may be left.
            unlink(state_.pid_file(daemon).c_str());
        }
    }
}

void LocalCluster::stop_started() {
    auto was_started = [this](const std::string& daemon) {
        return std::find(started_.begin(), started_.end(), daemon) != started_.end();
    };
    const std::string& mount = state_.settings().mount;
    if (was_started("mount") && mount_at(mount)) {
        Status unmounted = unmount(mount, Unmount::kLazy);
        if (!unmounted.ok()) {
            notices_.push_back(unmounted.error().detail);
        }
    }
    std::vector<std::string> others;
    for (const std::string& daemon : started_) {
        if (daemon != "mount") {
            others.push_back(daemon);
        }
    }
    if (was_started("mount")) {
        stop_group({"mount"}, kStopPatience);
    }
    stop_group(others, kStopPatience);
    started_.clear();
}

}  // namespace kdfs::tools
