#pragma once

#include "kdfs/base/result.h"
#include "kdfs/rt/reactor.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/task.h"

#include <sys/socket.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kdfs {

// Owns a file descriptor.
class UniqueFd {
public:
    UniqueFd() = default;
    explicit UniqueFd(int fd) : fd_(fd) {}
    UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    UniqueFd& operator=(UniqueFd&& other) noexcept {
        if (this != &other) {
            reset();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    ~UniqueFd() { reset(); }
    int get() const { return fd_; }
    bool valid() const { return fd_ >= 0; }
    void reset();

private:
    int fd_ = -1;
};

// An address the kernel understands.
struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t size = 0;

    int family() const { return storage.ss_family; }
    bool is_unix() const { return family() == AF_UNIX; }
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
    // "127.0.0.1:7000", "[::1]:7000", "unix:/path".
    std::string to_string() const;
};

// An address as users write it.
struct EndpointName {
    std::string path;
    std::string host;
    std::string port;
};
// "host:port", "[v6]:port" or "unix:/path"; kInvalidArgument says what is wrong.
Result<EndpointName> parse_endpoint(const std::string& address);

// The kernel's addresses of `name`. A path or a number needs no look-up; nothing if the host's name
// has to be asked for.
Result<std::optional<std::vector<SocketAddress>>> numeric_addresses(const EndpointName& name);
// Asks the system's resolver: blocks. kUnreachable if it does not know the host.
Result<std::vector<SocketAddress>> look_up(const EndpointName& name);

// A non-blocking socket that listens. kBusy if the address is taken. The socket file of a
// process that died is replaced.
Result<UniqueFd> listen_socket(const SocketAddress& address);
// Settings every connection has: no delay, keep-alive, and an end for unacknowledged data.
void set_connection_options(int fd, bool is_unix);
// The address at the other end, for messages.
std::string peer_text(int fd);

// A socket with a coroutine that waits for it. Edge-triggered: wait only after the kernel said
// EAGAIN.
class WaitableSocket final : private FdHandler {
public:
    static Result<std::unique_ptr<WaitableSocket>> create(Reactor& reactor, UniqueFd fd);
    ~WaitableSocket();
    WaitableSocket(const WaitableSocket&) = delete;
    WaitableSocket& operator=(const WaitableSocket&) = delete;

    int fd() const { return fd_.get(); }
    // False if the time ran out.
    Task<bool> wait(TimePoint deadline);
    // Gives the descriptor away, no longer watched.
    UniqueFd release();

private:
    WaitableSocket(Reactor& reactor, UniqueFd fd) : reactor_(reactor), fd_(std::move(fd)) {}
    void on_fd_ready(uint32_t events) override;

    Reactor& reactor_;
    UniqueFd fd_;
    uint64_t token_ = 0;
    Event ready_;
};

// A connected socket. kUnreachable, kTimeout; the message names `text`.
Task<Result<std::unique_ptr<WaitableSocket>>> connect_socket(Reactor& reactor,
                                                             SocketAddress address,
                                                             std::string text,
                                                             TimePoint deadline);

}  // namespace kdfs
