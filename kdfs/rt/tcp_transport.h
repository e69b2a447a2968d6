#pragma once

#include "kdfs/base/log.h"
#include "kdfs/rt/cluster_key.h"
#include "kdfs/rt/frame.h"
#include "kdfs/rt/reactor.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/tcp_connection.h"
#include "kdfs/rt/thread_offload.h"
#include "kdfs/rt/tls_session.h"
#include "kdfs/rt/transport.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kdfs {

struct TcpTransportOptions {
    PeerIdentity self;
    std::string cluster_id;
    ClusterKey key{};
    // Data connections stay in TLS if one of the two ends wants it.
    bool encrypt_data = false;
    // Another number than the peer's is refused on both sides. Set by tests only.
    uint16_t protocol_version = FrameHeader::kVersion;
};

// Transport over TCP and Unix sockets. Every connection begins with TLS 1.3 under the cluster key
// and one Hello from each end (see tcp_handshake.h); then control connections stay in TLS, data
// connections go on in clear under a keyed seal, or stay in TLS too. A peer that does not prove the
// key is refused and logged with its address.
//
// Bounds: kHandshakesMax connections that have not proven the key, each for kHandshakeTime; more
// are closed at once. At most kRefusalsLoggedPerSecond refusals are logged a second.
// Ownership: the reactor and the log outlive it; listeners and connections may outlive it.
class TcpTransport : public Transport {
public:
    static constexpr size_t kHandshakesMax = 256;
    static constexpr Duration kHandshakeTime = std::chrono::seconds(5);
    static constexpr uint64_t kRefusalsLoggedPerSecond = 20;

    static Result<std::unique_ptr<TcpTransport>> create(Reactor& reactor,
                                                        LogSink& log,
                                                        TcpTransportOptions options);
    ~TcpTransport() override;

    Task<Result<std::unique_ptr<Listener>>> listen(std::string address,
                                                   AcceptHandler on_accept) override;
    Task<Result<std::shared_ptr<Connection>>> connect(std::string address,
                                                      ChannelKind kind,
                                                      TimePoint deadline) override;
    // Accepted connections that have not finished their handshake.
    size_t handshakes() const { return handshakes_.running(); }

private:
    class TcpListener;
    struct Accepting;

    TcpTransport(Reactor& reactor, LogSink& log, TcpTransportOptions options);
    Task<Result<std::vector<SocketAddress>>> resolve(std::string address);
    void accept(std::shared_ptr<Accepting> accepting, UniqueFd fd);
    Task<void> serve(std::shared_ptr<Accepting> accepting, UniqueFd fd);
    void log_refusal(const std::string& address, const Error& error);
    HandshakeTerms terms(ChannelKind kind) const;

    Reactor& reactor_;
    LogSink& log_;
    TcpTransportOptions options_;
    std::unique_ptr<TlsContext> tls_;
    std::shared_ptr<ReceiveStage> stage_ = std::make_shared<ReceiveStage>();
    // Made when the first host name has to be looked up.
    std::optional<ThreadOffload> resolver_;
    TimePoint refusals_since_{};
    uint64_t refusals_ = 0;
    TaskScope handshakes_;
};

}  // namespace kdfs
