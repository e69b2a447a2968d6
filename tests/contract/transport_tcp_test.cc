#include "kdfs/base/spdlog_sink.h"
#include "kdfs/rt/tcp_transport.h"
#include "tests/contract/real_world.h"
#include "tests/contract/transport_contract.h"

namespace kdfs::contract {
namespace {

PeerIdentity identity(PeerRole role, uint64_t node, std::string name) {
    PeerIdentity out;
    out.role = role;
    out.node = NodeId(node);
    out.name = std::move(name);
    return out;
}

class TcpWorldBase : public RealWorld {
public:
    explicit TcpWorldBase(bool encrypt_data)
        : server_(make(server_identity(), encrypt_data)), client_(make(client_identity(), false)) {}
    Transport& server() { return *server_; }
    Transport& client() { return *client_; }
    PeerIdentity server_identity() { return identity(PeerRole::kStorage, 2, "storage n2"); }
    PeerIdentity client_identity() { return identity(PeerRole::kClient, 0, "client host7:4711"); }

private:
    std::unique_ptr<TcpTransport> make(PeerIdentity self, bool encrypt_data) {
        TcpTransportOptions options;
        options.self = std::move(self);
        options.cluster_id = "c1";
        options.key.fill(std::byte{42});
        options.encrypt_data = encrypt_data;
        auto out = TcpTransport::create(reactor(), log_, std::move(options));
        KDFS_CHECK(out.ok());
        return std::move(*out);
    }

    NullLogSink log_;
    std::unique_ptr<TcpTransport> server_;
    std::unique_ptr<TcpTransport> client_;
};

class TcpWorld : public TcpWorldBase {
public:
    TcpWorld() : TcpWorldBase(false) {}
    std::string listen_address() { return "127.0.0.1:0"; }
};

class EncryptedTcpWorld : public TcpWorldBase {
public:
    EncryptedTcpWorld() : TcpWorldBase(true) {}
    std::string listen_address() { return "127.0.0.1:0"; }
};

class UnixWorld : public TcpWorldBase {
public:
    UnixWorld() : TcpWorldBase(false) {}
    std::string listen_address() {
        return "unix:" + directory_.path() + "/s" + std::to_string(++number_);
    }

private:
    TemporaryDirectory directory_;
    int number_ = 0;
};

}  // namespace

INSTANTIATE_TYPED_TEST_SUITE_P(Tcp, TransportContract, TcpWorld);
INSTANTIATE_TYPED_TEST_SUITE_P(TcpEncrypted, TransportContract, EncryptedTcpWorld);
INSTANTIATE_TYPED_TEST_SUITE_P(Unix, TransportContract, UnixWorld);

}  // namespace kdfs::contract
