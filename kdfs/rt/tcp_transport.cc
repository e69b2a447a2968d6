#include "kdfs/rt/tcp_transport.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace kdfs {
namespace {

// Connections accepted in one turn.
constexpr int kAcceptsPerTurn = 64;
// After the process ran out of descriptors.
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);

}  // namespace

// What a listener and the handshakes of its connections share: the handler lives as long as any of
// them, and is not called once the listener is gone.
struct TcpTransport::Accepting {
    AcceptHandler handler;
    bool listening = true;
};

class TcpTransport::TcpListener : public Listener, private FdHandler {
public:
    static Result<std::unique_ptr<Listener>> create(TcpTransport& transport,
                                                    UniqueFd fd,
                                                    AcceptHandler handler) {
        auto out = std::make_unique<TcpListener>(transport, std::move(fd));
        out->accepting_->handler = std::move(handler);
        KDFS_TRY(out->watch());
        return std::unique_ptr<Listener>(std::move(out));
    }
    TcpListener(TcpTransport& transport, UniqueFd fd)
        : transport_(transport),
          reactor_(transport.reactor_),
          fd_(std::move(fd)),
          accepting_(std::make_shared<Accepting>()) {
        address_.size = sizeof address_.storage;
        ::getsockname(fd_.get(), address_.get(), &address_.size);
    }
    ~TcpListener() override {
        accepting_->listening = false;
        reactor_.cancel(pause_);
        unwatch();
        if (address_.is_unix()) {
            constexpr size_t kPrefixBytes = sizeof "unix:" - 1;
            ::unlink(address().substr(kPrefixBytes).c_str());
        }
    }
    TcpListener(const TcpListener&) = delete;
    TcpListener& operator=(const TcpListener&) = delete;
    std::string address() const override { return address_.to_string(); }

private:
    Status watch() {
        KDFS_TRY_ASSIGN(token_, reactor_.watch(fd_.get(), EPOLLIN, *this));
        return {};
    }
    void unwatch() {
        if (token_ != 0) {
            reactor_.unwatch(std::exchange(token_, 0));
        }
    }

    void on_fd_ready(uint32_t events) override {
        (void)events;
        std::shared_ptr<Accepting> accepting = accepting_;
        for (int i = 0; i < kAcceptsPerTurn; ++i) {
            UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            if (fd.valid()) {
                set_connection_options(fd.get(), address_.is_unix());
                transport_.accept(accepting, std::move(fd));
            } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                pause(errno);
                return;
            } else if (errno != ECONNABORTED && errno != EINTR) {
                return;
            }
        }
    }

    // Out of descriptors: the socket would stay readable and the loop would spin.
    void pause(int error_number) {
        LogEvent(transport_.log_, LogLevel::kError, "cannot accept connections")
            .with("address", address())
            .with("cause", errno_error(error_number, "accept").to_string())
            .with("next", "raise the limit of open files (ulimit -n)");
        unwatch();
        pause_ = reactor_.call_at(reactor_.now() + kAcceptPause, [this] {
            Status watched = watch();
            if (!watched.ok()) {
                pause(ENOMEM);
            }
        });
    }

    TcpTransport& transport_;
    Reactor& reactor_;
    UniqueFd fd_;
    SocketAddress address_;
    std::shared_ptr<Accepting> accepting_;
    uint64_t token_ = 0;
    TimerId pause_ = 0;
};

Result<std::unique_ptr<TcpTransport>> TcpTransport::create(Reactor& reactor,
                                                           LogSink& log,
                                                           TcpTransportOptions options) {
    KDFS_TRY_ASSIGN(std::unique_ptr<TlsContext> tls,
                    TlsContext::create(options.key, options.cluster_id, options.self));
    std::unique_ptr<TcpTransport> out(new TcpTransport(reactor, log, std::move(options)));
    out->tls_ = std::move(tls);
    return out;
}

TcpTransport::TcpTransport(Reactor& reactor, LogSink& log, TcpTransportOptions options)
    : reactor_(reactor), log_(log), options_(std::move(options)), handshakes_(reactor) {}

TcpTransport::~TcpTransport() = default;

HandshakeTerms TcpTransport::terms(ChannelKind kind) const {
    HandshakeTerms out;
    out.context = tls_.get();
    out.self = options_.self;
    out.kind = kind;
    out.encrypt_data = options_.encrypt_data;
    out.version = options_.protocol_version;
    return out;
}

Task<Result<std::vector<SocketAddress>>> TcpTransport::resolve(std::string address) {
    KDFS_CO_TRY_ASSIGN(EndpointName name, parse_endpoint(address));
    KDFS_CO_TRY_ASSIGN(std::optional<std::vector<SocketAddress>> numbers, numeric_addresses(name));
    if (numbers) {
        co_return std::move(*numbers);
    }
    if (!resolver_) {
        resolver_.emplace(reactor_, 1);
    }
    auto found = std::make_shared<std::vector<SocketAddress>>();
    Function<Status()> work = [name, found]() -> Status {
        KDFS_TRY_ASSIGN(*found, look_up(name));
        return {};
    };
    Status done = co_await resolver_->run(std::move(work));
    KDFS_CO_TRY(std::move(done));
    co_return std::move(*found);
}

Task<Result<std::unique_ptr<Listener>>> TcpTransport::listen(std::string address,
                                                             AcceptHandler on_accept) {
    KDFS_CO_TRY_ASSIGN(std::vector<SocketAddress> addresses, co_await resolve(address));
    KDFS_CO_TRY_ASSIGN(UniqueFd fd, listen_socket(addresses.front()));
    co_return TcpListener::create(*this, std::move(fd), std::move(on_accept));
}

Task<Result<std::shared_ptr<Connection>>> TcpTransport::connect(std::string address,
                                                                ChannelKind kind,
                                                                TimePoint deadline) {
    KDFS_CO_TRY_ASSIGN(std::vector<SocketAddress> addresses, co_await resolve(address));
    Error last(Errc::kUnreachable, "connect to " + address + ": the host has no address");
    for (const SocketAddress& each : addresses) {
        auto socket = co_await connect_socket(reactor_, each, address, deadline);
        if (!socket.ok()) {
            last = std::move(socket).error();
            continue;
        }
        auto established =
            co_await Handshake::as_client(std::move(*socket), terms(kind), address, deadline);
        if (!established.ok()) {
            co_return std::move(established).error();
        }
        std::shared_ptr<Connection> connection =
            std::make_shared<TcpConnection>(reactor_, stage_, std::move(*established));
        co_return connection;
    }
    co_return last;
}

void TcpTransport::accept(std::shared_ptr<Accepting> accepting, UniqueFd fd) {
    if (handshakes_.running() >= kHandshakesMax) {
        log_refusal(peer_text(fd.get()),
                    Error(Errc::kOverloaded, "too many connections are in their handshake"));
        return;
    }
    handshakes_.spawn_now(serve(std::move(accepting), std::move(fd)));
}

Task<void> TcpTransport::serve(std::shared_ptr<Accepting> accepting, UniqueFd fd) {
    std::string address = peer_text(fd.get());
    auto socket = WaitableSocket::create(reactor_, std::move(fd));
    if (!socket.ok()) {
        log_refusal(address, socket.error());
        co_return;
    }
    // The client says the kind of channel it wants.
    HandshakeTerms ours = terms(ChannelKind::kControl);
    TimePoint deadline = reactor_.now() + kHandshakeTime;
    auto established =
        co_await Handshake::as_server(std::move(*socket), std::move(ours), address, deadline);
    if (!established.ok()) {
        log_refusal(address, established.error());
        co_return;
    }
    if (!accepting->listening) {
        co_return;
    }
    ChannelKind kind = established->kind;
    std::shared_ptr<Connection> connection =
        std::make_shared<TcpConnection>(reactor_, stage_, std::move(*established));
    accepting->handler(std::move(connection), kind);
}

void TcpTransport::log_refusal(const std::string& address, const Error& error) {
    if (reactor_.now() - refusals_since_ >= std::chrono::seconds(1)) {
        refusals_since_ = reactor_.now();
        refusals_ = 0;
    }
    if (++refusals_ > kRefusalsLoggedPerSecond) {
        return;
    }
    LogEvent(log_, LogLevel::kWarn, "connection refused")
        .with("peer", address)
        .with("cause", error.to_string());
}

}  // namespace kdfs
