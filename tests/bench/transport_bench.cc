// kdfs-bench-transport [SECONDS [ROWS]]: what a call costs between two processes on this machine,
// beside a plain blocking ping-pong over the same kind of socket. Each row gives time and processor
// time (user and system of both processes) a call, and processor seconds a GiB for large replies.

#include "kdfs/base/spdlog_sink.h"
#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/real_env.h"
#include "kdfs/rt/socket.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

constexpr size_t kSmallBytes = 64;

double seconds_of(const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}
double cpu(int who) {
    rusage usage{};
    ::getrusage(who, &usage);
    return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}
double wall() {
    timespec at{};
    ::clock_gettime(CLOCK_MONOTONIC, &at);
    return static_cast<double>(at.tv_sec) + static_cast<double>(at.tv_nsec) * 1e-9;
}

struct Figures {
    uint64_t calls = 0;
    double seconds = 0;
    double client_cpu = 0;
};

void report(const char* name, const Figures& figures, double server_cpu, uint64_t bytes) {
    double calls = static_cast<double>(figures.calls);
    double total_cpu = figures.client_cpu + server_cpu;
    std::printf("%-34s %9.2f us/call %9.2f us cpu/call",
                name,
                figures.seconds / calls * 1e6,
                total_cpu / calls * 1e6);
    if (bytes != 0) {
        double gib = calls * static_cast<double>(bytes) / static_cast<double>(GiB);
        std::printf("   %6.2f GiB/s %7.3f cpu s/GiB", gib / figures.seconds, total_cpu / gib);
    }
    std::printf("\n");
    std::fflush(stdout);
}

// Runs `server` in a process of its own, `client` here, and prints what both took.
template <class Server, class Client>
void measure(const char* name, uint64_t bytes, Server server, Client client) {
    std::fflush(stdout);
    pid_t child = ::fork();
    if (child == 0) {
        server();
        ::_exit(0);
    }
    Figures figures = client();
    ::kill(child, SIGKILL);
    rusage usage{};
    int status = 0;
    ::wait4(child, &status, 0, &usage);
    report(name, figures, seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime), bytes);
}

void transfer(int fd, char* data, size_t size, bool out) {
    for (size_t done = 0; done < size;) {
        ssize_t got = out ? ::send(fd, data + done, size - done, MSG_NOSIGNAL)
                          : ::recv(fd, data + done, size - done, 0);
        if (got <= 0) {
            ::_exit(0);
        }
        done += static_cast<size_t>(got);
    }
}

int blocking(UniqueFd& fd) {
    int flags = ::fcntl(fd.get(), F_GETFL);
    ::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK);
    return fd.get();
}

void raw_row(const char* name, const std::string& address, size_t reply_bytes, double time) {
    auto endpoint = parse_endpoint(address);
    auto addresses = numeric_addresses(*endpoint);
    SocketAddress at = (*addresses)->front();
    auto listening = listen_socket(at);
    KDFS_CHECK(listening.ok());
    at.size = sizeof at.storage;
    ::getsockname(listening->get(), at.get(), &at.size);
    std::vector<char> reply(reply_bytes);
    std::vector<char> request(kSmallBytes);
    auto server = [&] {
        blocking(*listening);
        UniqueFd fd(::accept(listening->get(), nullptr, nullptr));
        set_connection_options(fd.get(), at.is_unix());
        while (true) {
            transfer(fd.get(), request.data(), request.size(), false);
            transfer(fd.get(), reply.data(), reply.size(), true);
        }
    };
    auto client = [&] {
        UniqueFd fd(::socket(at.family(), SOCK_STREAM, 0));
        set_connection_options(fd.get(), at.is_unix());
        KDFS_CHECK(::connect(fd.get(), at.get(), at.size) == 0);
        Figures out;
        double start = wall();
        double cpu_start = cpu(RUSAGE_SELF);
        while ((out.seconds = wall() - start) < time) {
            for (int i = 0; i < 16; ++i, ++out.calls) {
                transfer(fd.get(), request.data(), request.size(), true);
                transfer(fd.get(), reply.data(), reply.size(), false);
            }
        }
        out.client_cpu = cpu(RUSAGE_SELF) - cpu_start;
        return out;
    };
    measure(name, reply_bytes > kSmallBytes ? reply_bytes : 0, server, client);
}

std::unique_ptr<RealEnv> make_env(LogSink& log) {
    TcpTransportOptions options;
    options.self.role = PeerRole::kTool;
    options.self.name = "bench";
    options.cluster_id = "bench";
    auto env = RealEnv::create(log, std::move(options));
    KDFS_CHECK(env.ok());
    return std::move(*env);
}

struct Calls {
    static Task<Result<RpcReply>> serve(RpcRequest request, BufferChain reply) {
        co_return RpcReply(std::move(request.body), std::move(reply));
    }
    static Task<bool> listen(RpcServer& server, std::string address) {
        Status listening = co_await server.listen(std::move(address));
        KDFS_CHECK(listening.ok());
        Event never;
        co_await never.wait();
        co_return true;
    }
    static Task<void> one(RpcConnection& connection,
                          Scheduler& scheduler,
                          double end,
                          uint64_t& calls) {
        Buffer body = Buffer::zeros(kSmallBytes);
        while (wall() < end) {
            for (int i = 0; i < 16; ++i) {
                RpcCall call(MessageType::kStatus,
                             body,
                             scheduler.now() + std::chrono::seconds(10));
                Result<RpcReply> reply = co_await connection.call(std::move(call));
                KDFS_CHECK(reply.ok());
                ++calls;
            }
        }
    }
    static Task<Figures> run(RealEnv& env,
                             std::string address,
                             ChannelKind kind,
                             int depth,
                             double time) {
        RpcChannel channel(env, std::move(address), kind);
        auto connection = co_await channel.connection();
        while (!connection.ok()) {
            co_await sleep_for(env.scheduler(), std::chrono::milliseconds(20));
            connection = co_await channel.connection();
        }
        Figures out;
        double start = wall();
        double cpu_start = cpu(RUSAGE_SELF);
        TaskScope scope(env.scheduler());
        for (int i = 0; i < depth; ++i) {
            scope.spawn(one(**connection, env.scheduler(), start + time, out.calls));
        }
        co_await scope.close();
        out.seconds = wall() - start;
        out.client_cpu = cpu(RUSAGE_SELF) - cpu_start;
        connection = Error(Errc::kCancelled);
        co_await channel.stop();
        co_return out;
    }
};

struct Row {
    const char* name;
    std::string address;
    ChannelKind kind;
    size_t reply_bytes;
    int depth;
};

void rpc_row(const Row& row, double time) {
    NullLogSink log;
    auto server = [&] {
        auto env = make_env(log);
        BufferChain reply;
        if (row.reply_bytes != 0) {
            reply.append(Buffer::zeros(row.reply_bytes));
        }
        RpcHandler handler = [&reply](RpcRequest request) {
            return Calls::serve(std::move(request), reply);
        };
        RpcServer rpc(*env, std::move(handler));
        run_task(env->reactor(), Calls::listen(rpc, row.address));
    };
    auto client = [&] {
        auto env = make_env(log);
        return run_task(env->reactor(), Calls::run(*env, row.address, row.kind, row.depth, time));
    };
    measure(row.name, row.reply_bytes, server, client);
}

}  // namespace
}  // namespace kdfs

int main(int argc, char** argv) {
    // Only rows whose name contains the second argument.
    std::string_view wanted = argc > 2 ? argv[2] : "";
    using kdfs::ChannelKind;
    double time = argc > 1 ? std::atof(argv[1]) : 1.5;
    std::string tcp = "127.0.0.1:47113";
    std::string local = "unix:/tmp/kdfs-bench-" + std::to_string(::getpid());
    constexpr size_t kLarge = 1 << 20;
    const kdfs::Row rows[] = {
        {"rpc tcp control 64 B", tcp, ChannelKind::kControl, 0, 1},
        {"rpc tcp data 64 B", tcp, ChannelKind::kData, 0, 1},
        {"rpc unix control 64 B", local, ChannelKind::kControl, 0, 1},
        {"rpc unix data 64 B", local, ChannelKind::kData, 0, 1},
        {"rpc tcp control 64 B x16", tcp, ChannelKind::kControl, 0, 16},
        {"rpc tcp data 64 B x16", tcp, ChannelKind::kData, 0, 16},
        {"rpc tcp data 1 MiB", tcp, ChannelKind::kData, kLarge, 1},
        {"rpc tcp data 1 MiB x4", tcp, ChannelKind::kData, kLarge, 4},
        {"rpc tcp control 1 MiB", tcp, ChannelKind::kControl, kLarge, 1},
        {"rpc unix data 1 MiB", local, ChannelKind::kData, kLarge, 1},
    };
    const kdfs::Row raw_rows[] = {
        {"raw tcp 64 B", "127.0.0.1:0", ChannelKind::kData, kdfs::kSmallBytes, 1},
        {"raw unix 64 B", local + "r", ChannelKind::kData, kdfs::kSmallBytes, 1},
        {"raw tcp 1 MiB", "127.0.0.1:0", ChannelKind::kData, kLarge, 1},
        {"raw unix 1 MiB", local + "s", ChannelKind::kData, kLarge, 1},
    };
    auto skipped = [&](const char* name) {
        return std::string_view(name).find(wanted) == std::string_view::npos;
    };
    for (const kdfs::Row& row : raw_rows) {
        if (!skipped(row.name)) {
            kdfs::raw_row(row.name, row.address, row.reply_bytes, time);
        }
    }
    for (const kdfs::Row& row : rows) {
        if (!skipped(row.name)) {
            kdfs::rpc_row(row, time);
        }
    }
    ::unlink((local + "r").c_str());
    ::unlink((local + "s").c_str());
    return 0;
}
