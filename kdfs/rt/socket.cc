#include "kdfs/rt/socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace kdfs {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
// Connections waiting to be accepted.
constexpr int kBacklog = 512;

Result<std::vector<SocketAddress>> from_resolver(const EndpointName& name, int flags) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    int failed = ::getaddrinfo(name.host.c_str(), name.port.c_str(), &hints, &found);
    if (failed != 0) {
        return Error(Errc::kUnreachable,
                     "host " + name.host + " cannot be found: " + ::gai_strerror(failed));
    }
    std::vector<SocketAddress> out;
    for (addrinfo* each = found; each != nullptr; each = each->ai_next) {
        SocketAddress address;
        std::memcpy(&address.storage, each->ai_addr, each->ai_addrlen);
        address.size = each->ai_addrlen;
        out.push_back(address);
    }
    ::freeaddrinfo(found);
    return out;
}

Result<SocketAddress> unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return Error(Errc::kNameTooLong,
                     "unix:" + path + ": the path of a socket has at most " +
                         std::to_string(sizeof address.sun_path - 1) + " bytes: use a shorter one");
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    SocketAddress out;
    std::memcpy(&out.storage, &address, sizeof address);
    out.size = sizeof address;
    return out;
}

Error listen_error(int error_number, const SocketAddress& address) {
    std::string text = "listen on " + address.to_string();
    if (error_number == EADDRINUSE) {
        return {Errc::kBusy,
                text +
                    ": the address is in use by another process: stop that one or choose "
                    "another address"};
    }
    return errno_error(error_number, std::move(text));
}

// True if nobody listens on the socket file any more.
bool is_abandoned(const SocketAddress& address) {
    UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    return probe.valid() && ::connect(probe.get(), address.get(), address.size) != 0 &&
           errno == ECONNREFUSED;
}

void set_option(int fd, int level, int option, int value) {
    // A kernel without the option serves as well, only less quickly.
    (void)::setsockopt(fd, level, option, &value, sizeof value);
}

}  // namespace

void UniqueFd::reset() {
    if (fd_ >= 0) {
        ::close(std::exchange(fd_, -1));
    }
}

std::string SocketAddress::to_string() const {
    if (is_unix()) {
        sockaddr_un address{};
        std::memcpy(&address, &storage, std::min<size_t>(size, sizeof address));
        size_t length = ::strnlen(address.sun_path, sizeof address.sun_path);
        return "unix:" + std::string(address.sun_path, length);
    }
    char host[INET6_ADDRSTRLEN] = "";
    if (family() == AF_INET) {
        sockaddr_in address{};
        std::memcpy(&address, &storage, sizeof address);
        ::inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
        return std::string(host) + ":" + std::to_string(ntohs(address.sin_port));
    }
    sockaddr_in6 address{};
    std::memcpy(&address, &storage, sizeof address);
    ::inet_ntop(AF_INET6, &address.sin6_addr, host, sizeof host);
    return "[" + std::string(host) + "]:" + std::to_string(ntohs(address.sin6_port));
}

Result<EndpointName> parse_endpoint(const std::string& address) {
    EndpointName out;
    if (address.starts_with(kUnixPrefix)) {
        out.path = address.substr(kUnixPrefix.size());
        if (out.path.empty() || out.path.front() != '/') {
            return Error(Errc::kInvalidArgument,
                         "address \"" + address + "\": after unix: comes an absolute path");
        }
        return out;
    }
    size_t colon = address.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == address.size() ||
        address.find_first_not_of("0123456789", colon + 1) != std::string::npos ||
        address.size() - colon > 6 || std::stoul(address.substr(colon + 1)) > UINT16_MAX) {
        return Error(
            Errc::kInvalidArgument,
            "address \"" + address + "\" is neither host:port (port 0 to 65535) nor unix:/path");
    }
    out.host = address.substr(0, colon);
    out.port = address.substr(colon + 1);
    if (out.host.front() == '[' && out.host.back() == ']') {
        out.host = out.host.substr(1, out.host.size() - 2);
    }
    return out;
}

Result<std::optional<std::vector<SocketAddress>>> numeric_addresses(const EndpointName& name) {
    std::optional<std::vector<SocketAddress>> out;
    if (!name.path.empty()) {
        KDFS_TRY_ASSIGN(SocketAddress address, unix_address(name.path));
        out.emplace(1, address);
        return out;
    }
    Result<std::vector<SocketAddress>> numbers = from_resolver(name, AI_NUMERICHOST);
    if (numbers.ok()) {
        out = std::move(*numbers);
    }
    return out;
}

Result<std::vector<SocketAddress>> look_up(const EndpointName& name) {
    return from_resolver(name, AI_ADDRCONFIG);
}

Result<UniqueFd> listen_socket(const SocketAddress& address) {
    UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) {
        return listen_error(errno, address);
    }
    set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    bool bound = ::bind(fd.get(), address.get(), address.size) == 0;
    if (!bound && errno == EADDRINUSE && address.is_unix() && is_abandoned(address)) {
        ::unlink(address.to_string().substr(kUnixPrefix.size()).c_str());
        bound = ::bind(fd.get(), address.get(), address.size) == 0;
    }
    if (!bound || ::listen(fd.get(), kBacklog) != 0) {
        return listen_error(errno, address);
    }
    return fd;
}

void set_connection_options(int fd, bool is_unix) {
    if (is_unix) {
        return;
    }
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    // A peer whose machine is gone is noticed within about ten seconds, in use or idle.
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 4);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 2);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 10000);
}

std::string peer_text(int fd) {
    SocketAddress address;
    address.size = sizeof address.storage;
    if (::getpeername(fd, address.get(), &address.size) != 0) {
        return "unknown address";
    }
    if (!address.is_unix()) {
        return address.to_string();
    }
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
        return "unix socket";
    }
    return "unix socket (process " + std::to_string(credentials.pid) + ", user " +
           std::to_string(credentials.uid) + ")";
}

Result<std::unique_ptr<WaitableSocket>> WaitableSocket::create(Reactor& reactor, UniqueFd fd) {
    std::unique_ptr<WaitableSocket> out(new WaitableSocket(reactor, std::move(fd)));
    constexpr uint32_t kEvents = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    KDFS_TRY_ASSIGN(out->token_, reactor.watch(out->fd(), kEvents, *out));
    return out;
}

WaitableSocket::~WaitableSocket() { release(); }

UniqueFd WaitableSocket::release() {
    if (token_ != 0) {
        reactor_.unwatch(std::exchange(token_, 0));
    }
    return std::move(fd_);
}

void WaitableSocket::on_fd_ready(uint32_t events) {
    (void)events;
    ready_.set();
}

Task<bool> WaitableSocket::wait(TimePoint deadline) {
    // Set since the last wait: that may be old news, which costs one more try.
    bool came = co_await ready_.wait_until(deadline);
    ready_.reset();
    co_return came;
}

Task<Result<std::unique_ptr<WaitableSocket>>> connect_socket(Reactor& reactor,
                                                             SocketAddress address,
                                                             std::string text,
                                                             TimePoint deadline) {
    UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) {
        co_return errno_error(errno, "connect to " + text);
    }
    set_connection_options(fd.get(), address.is_unix());
    int failed = ::connect(fd.get(), address.get(), address.size) == 0 ? 0 : errno;
    auto socket = WaitableSocket::create(reactor, std::move(fd));
    if (!socket.ok()) {
        co_return std::move(socket).error();
    }
    if (failed == EINPROGRESS) {
        // Watched after the connect: what epoll says first is about this attempt.
        bool came = co_await (*socket)->wait(deadline);
        if (!came) {
            co_return Error(Errc::kTimeout, "connect to " + text + ": no answer in time");
        }
        socklen_t size = sizeof failed;
        ::getsockopt((*socket)->fd(), SOL_SOCKET, SO_ERROR, &failed, &size);
    }
    if (failed != 0) {
        co_return Error(
            Errc::kUnreachable,
            "connect to " + text + ": " + std::strerror(failed) + ": is the daemon running there?");
    }
    co_return std::move(*socket);
}

}  // namespace kdfs
