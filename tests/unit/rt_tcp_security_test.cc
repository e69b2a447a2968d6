// Peers that should not get in, and bytes that should not get through.

#include "kdfs/rt/reactor.h"
#include "kdfs/rt/socket.h"
#include "kdfs/rt/tcp_handshake.h"
#include "kdfs/rt/tcp_transport.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

class LinesSink : public LogSink {
public:
    bool enabled(LogLevel level) const override {
        (void)level;
        return true;
    }
    void write(LogLevel level, std::string_view line) override {
        (void)level;
        lines.emplace_back(line);
        written.pulse();
    }
    std::vector<std::string> lines;
    Event written;
};

TcpTransportOptions options_of(std::string cluster, int key) {
    TcpTransportOptions out;
    out.self.role = PeerRole::kStorage;
    out.self.node = NodeId(3);
    out.self.name = "storage n3";
    out.cluster_id = std::move(cluster);
    out.key.fill(static_cast<std::byte>(key));
    return out;
}

// A server that counts what it accepted, and what arrived.
struct Server {
    Server() {
        auto created = Reactor::create();
        KDFS_CHECK(created.ok());
        reactor = std::move(*created);
        transport = make(options_of("c1", 1));
        Transport::AcceptHandler on_accept = [this](std::shared_ptr<Connection> fresh,
                                                    ChannelKind) {
            ++accepted;
            attach(std::move(fresh));
        };
        auto listening = run_task(*reactor, transport->listen("127.0.0.1:0", std::move(on_accept)));
        KDFS_CHECK(listening.ok());
        listener = std::move(*listening);
    }
    std::unique_ptr<TcpTransport> make(TcpTransportOptions options) {
        auto out = TcpTransport::create(*reactor, log, std::move(options));
        KDFS_CHECK(out.ok());
        return std::move(*out);
    }
    void attach(std::shared_ptr<Connection> to) {
        connection = std::move(to);
        Connection::Handlers handlers;
        handlers.on_frame = [this](Frame) {
            ++frames;
            changed.pulse();
        };
        handlers.on_close = [this](Error reason) {
            closed = std::move(reason);
            changed.pulse();
        };
        connection->start(std::move(handlers));
        changed.pulse();
    }
    TimePoint soon() { return reactor->now() + std::chrono::seconds(30); }
    std::string address() { return listener->address(); }

    LinesSink log;
    std::unique_ptr<Reactor> reactor;
    std::unique_ptr<TcpTransport> transport;
    std::unique_ptr<Listener> listener;
    std::shared_ptr<Connection> connection;
    int accepted = 0;
    int frames = 0;
    std::optional<Error> closed;
    Event changed;
};

struct Coroutines {
    using Connected = Result<std::shared_ptr<Connection>>;

    static Task<Connected> connect(Server& server, Transport& client) {
        co_return co_await client.connect(server.address(), ChannelKind::kControl, server.soon());
    }
    static Task<bool> logged(Server& server) {
        while (server.log.lines.empty()) {
            co_await server.log.written.wait();
        }
        co_return true;
    }
    static Task<bool> closed(Server& server) {
        while (!server.closed) {
            co_await server.changed.wait();
        }
        co_return true;
    }
    static Task<bool> handshakes_over(Server& server) {
        while (server.transport->handshakes() != 0) {
            co_await yield_turn(*server.reactor);
        }
        co_return true;
    }

    // A socket without any TLS; sends `bytes`.
    static Task<Result<std::unique_ptr<WaitableSocket>>> raw(Server& server, std::string bytes) {
        KDFS_CO_TRY_ASSIGN(EndpointName name, parse_endpoint(server.address()));
        auto addresses = numeric_addresses(name);
        KDFS_CHECK(addresses.ok() && addresses->has_value());
        SocketAddress address = (*addresses)->front();
        auto socket =
            co_await connect_socket(*server.reactor, address, server.address(), server.soon());
        if (socket.ok()) {
            ssize_t sent = ::send((*socket)->fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            KDFS_CHECK(sent == static_cast<ssize_t>(bytes.size()));
        }
        co_return socket;
    }
    // Reads until the other end closes; the bytes are dropped.
    static Task<bool> until_closed(WaitableSocket& socket, TimePoint deadline) {
        char bytes[512];
        while (true) {
            ssize_t got = ::recv(socket.fd(), bytes, sizeof bytes, 0);
            if (got == 0 || (got < 0 && errno != EAGAIN)) {
                co_return true;
            }
            if (got < 0) {
                bool came = co_await socket.wait(deadline);
                if (!came) {
                    co_return false;
                }
            }
        }
    }
    static Task<bool> garbage_is_refused(Server& server, std::string bytes) {
        auto socket = co_await raw(server, std::move(bytes));
        KDFS_CHECK(socket.ok());
        ::shutdown((*socket)->fd(), SHUT_WR);
        co_return co_await until_closed(**socket, server.soon());
    }

    // A data connection whose client then sends raw bytes.
    static Task<Result<Established>> data_channel(Server& server, const TlsContext& context) {
        std::string nothing;
        auto socket = co_await raw(server, nothing);
        KDFS_CHECK(socket.ok());
        HandshakeTerms terms;
        terms.context = &context;
        terms.kind = ChannelKind::kData;
        terms.version = FrameHeader::kVersion;
        auto out = co_await Handshake::as_client(std::move(*socket),
                                                 terms,
                                                 server.address(),
                                                 server.soon());
        while (out.ok() && server.accepted == 0) {
            co_await server.changed.wait();
        }
        co_return out;
    }
};

std::string identity_of(const TcpTransportOptions& options) {
    return encode_identity(options.cluster_id, options.self);
}

TEST(TcpSecurityTest, WrongKeyIsRefusedOnBothSidesAndLogged) {
    Server server;
    auto client = server.make(options_of("c1", 2));

    auto connected = run_task(*server.reactor, Coroutines::connect(server, *client));
    run_task(*server.reactor, Coroutines::logged(server));

    ASSERT_FALSE(connected.ok());
    EXPECT_EQ(connected.error().code, Errc::kUnauthenticated);
    EXPECT_NE(connected.error().detail.find("key"), std::string::npos);
    EXPECT_NE(connected.error().detail.find(server.address()), std::string::npos);
    EXPECT_EQ(server.accepted, 0);
    EXPECT_NE(server.log.lines[0].find("peer=127.0.0.1:"), std::string::npos);
    EXPECT_NE(server.log.lines[0].find("Unauthenticated"), std::string::npos);
}

TEST(TcpSecurityTest, AnotherClusterIsToldSo) {
    for (int key : {1, 2}) {
        Server server;
        auto client = server.make(options_of("c2", key));

        auto connected = run_task(*server.reactor, Coroutines::connect(server, *client));
        run_task(*server.reactor, Coroutines::logged(server));

        ASSERT_FALSE(connected.ok());
        EXPECT_EQ(connected.error().code, Errc::kWrongCluster);
        EXPECT_NE(connected.error().detail.find("another cluster key than this node"),
                  std::string::npos);
        EXPECT_EQ(server.accepted, 0);
        EXPECT_NE(server.log.lines[0].find("WrongCluster"), std::string::npos);
    }
}

TEST(TcpSecurityTest, AnotherProtocolVersionIsToldSo) {
    Server server;
    TcpTransportOptions newer = options_of("c1", 1);
    newer.protocol_version = FrameHeader::kVersion + 1;
    auto client = server.make(std::move(newer));

    auto connected = run_task(*server.reactor, Coroutines::connect(server, *client));
    run_task(*server.reactor, Coroutines::logged(server));

    ASSERT_FALSE(connected.ok());
    EXPECT_EQ(connected.error().code, Errc::kWrongVersion);
    EXPECT_NE(connected.error().detail.find("install the same release"), std::string::npos);
    EXPECT_EQ(server.accepted, 0);
    EXPECT_NE(server.log.lines[0].find("WrongVersion"), std::string::npos);
}

TEST(TcpSecurityTest, GarbageIsRefusedAndLogged) {
    std::vector<std::string> samples{
        "GET / HTTP/1.1\r\n\r\n",
        std::string(5000, '\0'),
        std::string(40000, '\x16'),
        std::string("\x16\x03\x01\xff\xff", 5) + std::string(20000, 'x'),
        std::string("\x16\x03\x01", 3),
        ""};
    for (const std::string& bytes : samples) {
        Server server;
        EXPECT_TRUE(run_task(*server.reactor, Coroutines::garbage_is_refused(server, bytes)));
        run_task(*server.reactor, Coroutines::logged(server));
        EXPECT_EQ(server.accepted, 0);
    }
}

TEST(TcpSecurityTest, UnfinishedHandshakesAreBoundedAndOthersClosedAtOnce) {
    Server server;
    std::vector<std::unique_ptr<WaitableSocket>> held;
    for (size_t i = 0; i < TcpTransport::kHandshakesMax; ++i) {
        auto socket = run_task(*server.reactor, Coroutines::raw(server, "\x16"));
        ASSERT_TRUE(socket.ok());
        held.push_back(std::move(*socket));
    }

    auto late = run_task(*server.reactor, Coroutines::raw(server, ""));
    ASSERT_TRUE(late.ok());
    EXPECT_TRUE(run_task(*server.reactor, Coroutines::until_closed(**late, server.soon())));

    EXPECT_LE(server.transport->handshakes(), TcpTransport::kHandshakesMax);
    ASSERT_FALSE(server.log.lines.empty());
    EXPECT_NE(server.log.lines[0].find("Overloaded"), std::string::npos);
    held.clear();
    run_task(*server.reactor, Coroutines::handshakes_over(server));
}

// Holds its connection open and says next to nothing: dropped after TcpTransport::kHandshakeTime.
TEST(TcpSecurityTest, SlowHandshakeIsDropped) {
    Server server;
    auto socket = run_task(*server.reactor, Coroutines::raw(server, "\x16\x03"));
    ASSERT_TRUE(socket.ok());

    EXPECT_TRUE(run_task(*server.reactor, Coroutines::until_closed(**socket, server.soon())));

    EXPECT_EQ(server.accepted, 0);
    run_task(*server.reactor, Coroutines::logged(server));
    EXPECT_NE(server.log.lines[0].find("Timeout"), std::string::npos);
}

class TcpDataChannelTest : public testing::Test {
protected:
    TcpDataChannelTest() {
        TcpTransportOptions client = options_of("c1", 1);
        auto created = TlsContext::create(client.key, client.cluster_id, client.self);
        KDFS_CHECK(created.ok());
        context_ = std::move(*created);
        auto opened = run_task(*server_.reactor, Coroutines::data_channel(server_, *context_));
        KDFS_CHECK(opened.ok());
        channel_ = std::move(*opened);
    }
    void send(std::string_view bytes) {
        ssize_t sent = ::send(channel_.fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        KDFS_CHECK(sent == static_cast<ssize_t>(bytes.size()));
    }
    void send(const FrameBytes& bytes) {
        send(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    }
    FrameBytes sealed(uint64_t id, std::string_view body) {
        Frame frame;
        frame.header.request_id = id;
        frame.body = Buffer::copy_of(body);
        FrameBytes bytes = encode_header(frame);
        channel_.seal.seal(bytes);
        return bytes;
    }
    Error closed() {
        run_task(*server_.reactor, Coroutines::closed(server_));
        return *server_.closed;
    }

    Server server_;
    std::unique_ptr<TlsContext> context_;
    Established channel_;
};

TEST_F(TcpDataChannelTest, SealedFrameArrives) {
    send(sealed(1, "abc"));
    send("abc");
    channel_.fd.reset();
    EXPECT_EQ(closed().code, Errc::kUnreachable);
    EXPECT_EQ(server_.frames, 1);
}

TEST_F(TcpDataChannelTest, FrameWithoutTheKeysSealIsRefused) {
    Frame frame;
    send(encode_header(frame));
    EXPECT_EQ(closed().code, Errc::kMalformed);
    EXPECT_NE(closed().detail.find("authentication"), std::string::npos);
    EXPECT_EQ(server_.frames, 0);
}

TEST_F(TcpDataChannelTest, RepeatedFrameIsRefused) {
    FrameBytes frame = sealed(1, "");
    send(frame);
    send(frame);
    EXPECT_EQ(closed().code, Errc::kMalformed);
    EXPECT_EQ(server_.frames, 1);
}

TEST_F(TcpDataChannelTest, ChangedBodyIsRefused) {
    send(sealed(1, "abc"));
    send("abd");
    EXPECT_EQ(closed().code, Errc::kMalformed);
    EXPECT_EQ(server_.frames, 0);
}

TEST_F(TcpDataChannelTest, LengthBeyondTheBoundIsRefusedBeforeItIsReceived) {
    FrameBytes bytes = sealed(1, "");
    auto value = static_cast<uint32_t>(kPayloadBytesMax + 1);
    std::memcpy(bytes.data() + 36, &value, sizeof value);
    send(bytes);
    EXPECT_EQ(closed().code, Errc::kMalformed);
    EXPECT_NE(closed().detail.find("length"), std::string::npos);
}

TEST_F(TcpDataChannelTest, TruncatedFrameIsToldFromAnOrderlyEnd) {
    send(sealed(1, "abc"));
    send("ab");
    channel_.fd.reset();
    EXPECT_EQ(closed().code, Errc::kUnreachable);
    EXPECT_NE(closed().detail.find("inside a frame"), std::string::npos);
    EXPECT_EQ(server_.frames, 0);
}

TEST(HelloTest, EveryTruncationAndFlipIsSafe) {
    Hello hello;
    hello.version = 1;
    hello.kind = ChannelKind::kData;
    hello.cluster_id = "c1";
    hello.self.role = PeerRole::kClient;
    hello.self.name = "client";
    std::string good = encode_hello(hello);
    ASSERT_TRUE(decode_hello(good, 1).ok());
    for (size_t size = 0; size < good.size(); ++size) {
        EXPECT_FALSE(decode_hello(std::string_view(good).substr(0, size), 1).ok()) << size;
        std::string bad = good;
        bad[size] = static_cast<char>(bad[size] ^ 0xff);
        (void)decode_hello(bad, 1);
    }
    EXPECT_FALSE(decode_hello(good + "x", 1).ok());
    EXPECT_EQ(decode_hello(good, 2).error().code, Errc::kWrongVersion);
}

TEST(ClusterKeyTest, IdentityRoundTripsAndOthersAreRefused) {
    TcpTransportOptions options = options_of("c1", 1);
    options.self.name = "client host7:4711";
    auto decoded = decode_identity(identity_of(options));
    ASSERT_TRUE(decoded.ok());
    EXPECT_EQ(decoded->cluster_id, "c1");
    EXPECT_EQ(decoded->peer.name, "client host7:4711");
    EXPECT_EQ(decoded->peer.node, NodeId(3));
    for (std::string_view bad :
         {"", ":::", "c1", "c1:2:3", "c1:9:3:x", "c1:x:3:x", "c1:2::x", "c1:2:-3:x", ":2:3:x"}) {
        EXPECT_FALSE(decode_identity(bad).ok()) << bad;
    }
    EXPECT_FALSE(decode_identity("c1:2:3:" + std::string(300, 'x')).ok());
}

TEST(ClusterKeyTest, MemberKeysDifferByIdentity) {
    ClusterKey key{};
    auto first = derive_member_key(key, "c1:2:3:storage n3");
    auto second = derive_member_key(key, "c1:1:3:storage n3");
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_NE(*first, *second);
    EXPECT_NE(*first, key);
}

TEST(ClusterKeyTest, FileIsPrivateMadeOnceAndReadBack) {
    std::string path = testing::TempDir() + "kdfs_cluster_key_test";
    std::filesystem::remove(path);
    auto made = create_cluster_key(path);
    ASSERT_TRUE(made.ok());
    struct stat attributes {};
    ASSERT_EQ(::stat(path.c_str(), &attributes), 0);
    EXPECT_EQ(attributes.st_mode & 0777U, 0600U);
    EXPECT_EQ(*load_cluster_key(path), *made);
    EXPECT_EQ(create_cluster_key(path).error().code, Errc::kExists);

    ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
    EXPECT_EQ(load_cluster_key(path).error().code, Errc::kNotPermitted);
    ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
    std::ofstream(path) << "too short";
    EXPECT_EQ(load_cluster_key(path).error().code, Errc::kMalformed);
    std::filesystem::remove(path);
    EXPECT_EQ(load_cluster_key(path).error().code, Errc::kNotFound);
}

TEST(EndpointTest, BadAddressesAreNamed) {
    for (const char* bad : {"",
                            "host",
                            "host:",
                            ":70",
                            "host:port",
                            "host:65536",
                            "unix:",
                            "unix:x",
                            "host:999999999"}) {
        auto parsed = parse_endpoint(bad);
        ASSERT_FALSE(parsed.ok()) << bad;
        EXPECT_EQ(parsed.error().code, Errc::kInvalidArgument);
    }
    EXPECT_EQ(parse_endpoint("[::1]:70")->host, "::1");
    EXPECT_EQ(parse_endpoint("unix:/x")->path, "/x");
}

}  // namespace
}  // namespace kdfs
