#include "kdfs/rt/tcp_handshake.h"

#include "kdfs/base/codec.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace kdfs {
namespace {

constexpr uint8_t kFlagEncrypt = 1;

std::string version_text(uint16_t theirs, uint16_t ours) {
    return "the peer speaks protocol version " + std::to_string(theirs) + ", this program " +
           std::to_string(ours) + ": install the same release on both";
}

}  // namespace

std::string encode_hello(const Hello& hello) {
    std::string out;
    Writer w(out);
    w.u32(Hello::kMagic);
    w.u16(hello.version);
    w.u16(hello.result);
    w.u8(static_cast<uint8_t>(hello.kind));
    w.u8(hello.encrypt ? kFlagEncrypt : 0);
    w.bytes(hello.cluster_id);
    w.u8(static_cast<uint8_t>(hello.self.role));
    w.u64(hello.self.node.value);
    w.bytes(hello.self.name);
    constexpr size_t kDetailBytesMax = 1024;
    w.bytes(std::string_view(hello.detail).substr(0, kDetailBytesMax));
    return out;
}

Result<Hello> decode_hello(std::string_view text, uint16_t version) {
    Reader r(text);
    Hello hello;
    uint32_t magic = r.u32();
    hello.version = r.u16();
    if (!r.ok() || magic != Hello::kMagic) {
        return Error(Errc::kMalformed, "the peer's first message is not that of a kdfs program");
    }
    if (hello.version != version) {
        return Error(Errc::kWrongVersion, version_text(hello.version, version));
    }
    hello.result = r.u16();
    uint8_t kind = r.u8();
    uint8_t flags = r.u8();
    hello.cluster_id = r.bytes();
    uint8_t role = r.u8();
    hello.self.node = NodeId(r.u64());
    hello.self.name = r.bytes();
    hello.detail = r.bytes();
    bool known_kind = kind == static_cast<uint8_t>(ChannelKind::kControl) ||
                      kind == static_cast<uint8_t>(ChannelKind::kData);
    if (!r.done() || !known_kind || role > static_cast<uint8_t>(PeerRole::kTool) ||
        flags > kFlagEncrypt) {
        return Error(Errc::kMalformed, "the peer's first message is damaged");
    }
    hello.kind = static_cast<ChannelKind>(kind);
    hello.encrypt = flags == kFlagEncrypt;
    hello.self.role = static_cast<PeerRole>(role);
    return hello;
}

Handshake::Handshake(std::unique_ptr<WaitableSocket> socket,
                     std::string address,
                     TimePoint deadline)
    : socket_(std::move(socket)), address_(std::move(address)), deadline_(deadline) {}

Error Handshake::named(Error error) const {
    error.detail = address_ + ": " + error.detail;
    return error;
}

Status Handshake::open(const TlsContext& context, TlsSession::Side side) {
    KDFS_TRY_ASSIGN(tls_, TlsSession::create(context, side));
    return {};
}

Task<Status> Handshake::send_output() {
    while (true) {
        std::span<const std::byte> bytes = tls_->output();
        if (bytes.empty()) {
            co_return Status();
        }
        ssize_t sent = ::send(socket_->fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent > 0) {
            tls_->consume_output(static_cast<size_t>(sent));
        } else if (errno == EAGAIN) {
            bool came = co_await socket_->wait(deadline_);
            if (!came) {
                co_return named(Error(Errc::kTimeout, "the handshake took too long"));
            }
        } else if (errno != EINTR) {
            std::string cause = std::strerror(errno);
            co_return named(Error(Errc::kUnreachable, "the connection broke: " + cause));
        }
    }
}

Task<Status> Handshake::receive() {
    std::array<std::byte, 4096> bytes;
    while (true) {
        ssize_t got = ::recv(socket_->fd(), bytes.data(), bytes.size(), 0);
        if (got > 0) {
            received_bytes_ += static_cast<size_t>(got);
            tls_->feed(std::span(bytes).first(static_cast<size_t>(got)));
            co_return Status();
        }
        if (got == 0) {
            co_return named(
                Error(Errc::kUnreachable, "the peer closed the connection in the handshake"));
        }
        if (errno == EAGAIN) {
            bool came = co_await socket_->wait(deadline_);
            if (!came) {
                co_return named(Error(Errc::kTimeout, "the handshake took too long"));
            }
        } else if (errno != EINTR) {
            std::string cause = std::strerror(errno);
            co_return named(Error(Errc::kUnreachable, "the connection broke: " + cause));
        }
    }
}

Task<Status> Handshake::run_tls() {
    while (true) {
        Result<bool> done = tls_->handshake();
        Status sent = co_await send_output();
        if (!done.ok()) {
            co_return named(done.error());
        }
        KDFS_CO_TRY(std::move(sent));
        if (*done) {
            co_return Status();
        }
        if (received_bytes_ > kBytesMax) {
            co_return named(Error(Errc::kUnauthenticated, "the handshake is too long"));
        }
        Status received = co_await receive();
        KDFS_CO_TRY(std::move(received));
    }
}

Task<Status> Handshake::send_hello(Hello hello) {
    std::string body = encode_hello(hello);
    std::string message;
    Writer w(message);
    w.u16(static_cast<uint16_t>(body.size()));
    w.raw(body.data(), body.size());
    KDFS_CO_TRY(tls_->write(std::as_bytes(std::span(message))));
    co_return co_await send_output();
}

Task<Result<std::string>> Handshake::receive_hello() {
    std::string message;
    size_t wanted = sizeof(uint16_t);
    while (message.size() < wanted) {
        // Exactly what belongs to the message: what follows may be clear.
        std::string part(wanted - message.size(), '\0');
        Result<size_t> got = tls_->read(std::as_writable_bytes(std::span(part)));
        if (!got.ok()) {
            co_return named(std::move(got).error());
        }
        message.append(part, 0, *got);
        if (*got == 0) {
            Status received = co_await receive();
            KDFS_CO_TRY(std::move(received));
        }
        if (message.size() == sizeof(uint16_t)) {
            wanted = sizeof(uint16_t) + Reader(message).u16();
            if (wanted > Hello::kBytesMax) {
                co_return named(Error(Errc::kMalformed, "the peer's first message is too long"));
            }
        }
    }
    co_return message.substr(sizeof(uint16_t));
}

Result<Established> Handshake::finish(bool encrypted, PeerIdentity peer, ChannelKind kind) {
    Established out;
    if (!encrypted) {
        KDFS_TRY_ASSIGN(FrameSeal::Keys keys, tls_->export_seal_keys());
        out.seal = FrameSeal(keys);
        out.early = tls_->take_unread();
    } else {
        out.tls = std::move(tls_);
    }
    out.fd = socket_->release();
    out.peer = std::move(peer);
    out.kind = kind;
    out.address = address_;
    return out;
}

Task<Result<Established>> Handshake::as_client(std::unique_ptr<WaitableSocket> socket,
                                               HandshakeTerms terms,
                                               std::string address,
                                               TimePoint deadline) {
    Handshake self(std::move(socket), std::move(address), deadline);
    KDFS_CO_TRY(self.open(*terms.context, TlsSession::Side::kClient));
    Status tls = co_await self.run_tls();
    KDFS_CO_TRY(std::move(tls));
    Hello hello;
    hello.version = terms.version;
    hello.kind = terms.kind;
    hello.encrypt = terms.encrypt_data;
    hello.cluster_id = terms.context->cluster_id();
    hello.self = terms.self;
    Status sent = co_await self.send_hello(std::move(hello));
    KDFS_CO_TRY(std::move(sent));
    KDFS_CO_TRY_ASSIGN(std::string text, co_await self.receive_hello());
    Result<Hello> answer = decode_hello(text, terms.version);
    if (!answer.ok()) {
        co_return self.named(std::move(answer).error());
    }
    if (answer->result != 0) {
        co_return self.named(Error(errc_from_wire(answer->result), answer->detail));
    }
    bool encrypted = terms.kind == ChannelKind::kControl || answer->encrypt;
    co_return self.finish(encrypted, std::move(answer->self), terms.kind);
}

Task<Result<Established>> Handshake::as_server(std::unique_ptr<WaitableSocket> socket,
                                               HandshakeTerms terms,
                                               std::string address,
                                               TimePoint deadline) {
    Handshake self(std::move(socket), std::move(address), deadline);
    KDFS_CO_TRY(self.open(*terms.context, TlsSession::Side::kServer));
    Status tls = co_await self.run_tls();
    KDFS_CO_TRY(std::move(tls));
    KDFS_CO_TRY_ASSIGN(std::string text, co_await self.receive_hello());
    Result<Hello> hello = decode_hello(text, terms.version);
    PeerIdentity peer = self.tls_->peer();
    if (hello.ok() && hello->cluster_id != terms.context->cluster_id()) {
        hello = Error(Errc::kWrongCluster,
                      "the peer's cluster key is that of " + hello->cluster_id +
                          ", this node's that of " + terms.context->cluster_id() +
                          ": one of them has the wrong key file, or they are of different "
                          "clusters");
    }
    Hello answer;
    answer.version = terms.version;
    answer.cluster_id = terms.context->cluster_id();
    answer.self = terms.self;
    if (!hello.ok()) {
        answer.result = static_cast<uint16_t>(hello.error().code);
        answer.detail = hello.error().detail;
        Status ignored = co_await self.send_hello(std::move(answer));
        (void)ignored;
        co_return self.named(std::move(hello).error());
    }
    answer.kind = hello->kind;
    answer.encrypt = hello->kind == ChannelKind::kControl || hello->encrypt || terms.encrypt_data;
    bool encrypted = answer.encrypt;
    ChannelKind kind = hello->kind;
    Status sent = co_await self.send_hello(std::move(answer));
    KDFS_CO_TRY(std::move(sent));
    co_return self.finish(encrypted, std::move(peer), kind);
}

}  // namespace kdfs
