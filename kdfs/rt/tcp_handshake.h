#pragma once

#include "kdfs/base/result.h"
#include "kdfs/rt/frame_seal.h"
#include "kdfs/rt/socket.h"
#include "kdfs/rt/task.h"
#include "kdfs/rt/tls_session.h"
#include "kdfs/rt/transport.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace kdfs {

// The first message of each end inside TLS: a u16 length, then
//   u32 magic "KHLO"  u16 protocol version  u16 result code (0: welcome)  u8 channel kind
//   u8 flags (1: encrypt the data channel)  bytes cluster id  u8 role  u64 node  bytes name
//   bytes detail
// with bytes as a u32 length and that many bytes. The client speaks first; the server answers and
// says with the flag whether the connection stays in TLS.
struct Hello {
    static constexpr uint32_t kMagic = 0x4f4c484b;
    static constexpr size_t kBytesMax = 2048;

    uint16_t version = 0;
    uint16_t result = 0;
    ChannelKind kind = ChannelKind::kControl;
    bool encrypt = false;
    std::string cluster_id;
    PeerIdentity self;
    std::string detail;
};
// Without the length before it.
std::string encode_hello(const Hello& hello);
// kMalformed; kWrongVersion as soon as the version is known to be none of this program's, because
// the rest may then look different.
Result<Hello> decode_hello(std::string_view text, uint16_t version);

// A connection whose ends know each other.
struct Established {
    UniqueFd fd;
    // Null if the frames go in clear under `seal`.
    std::unique_ptr<TlsSession> tls;
    FrameSeal seal;
    // Bytes of the first frames that came with the handshake.
    std::string early;
    PeerIdentity peer;
    ChannelKind kind = ChannelKind::kControl;
    // The other end's address, for messages.
    std::string address;
};

// What one end brings to a handshake.
struct HandshakeTerms {
    const TlsContext* context = nullptr;
    PeerIdentity self;
    ChannelKind kind = ChannelKind::kControl;
    bool encrypt_data = false;
    uint16_t version = 0;
};

// Both ends of the handshake: TLS 1.3 with the key, then one Hello each. At most kBytesMax are
// taken from a peer that has not proven the key. Errors: kTimeout, kUnreachable, kUnauthenticated,
// kWrongVersion, kWrongCluster, kMalformed; the message names the other end.
class Handshake {
public:
    static constexpr size_t kBytesMax = 16384;

    static Task<Result<Established>> as_client(std::unique_ptr<WaitableSocket> socket,
                                               HandshakeTerms terms,
                                               std::string address,
                                               TimePoint deadline);
    static Task<Result<Established>> as_server(std::unique_ptr<WaitableSocket> socket,
                                               HandshakeTerms terms,
                                               std::string address,
                                               TimePoint deadline);

private:
    Handshake(std::unique_ptr<WaitableSocket> socket, std::string address, TimePoint deadline);
    Status open(const TlsContext& context, TlsSession::Side side);
    Task<Status> run_tls();
    Task<Status> send_output();
    Task<Status> receive();
    Task<Status> send_hello(Hello hello);
    Task<Result<std::string>> receive_hello();
    Result<Established> finish(bool encrypted, PeerIdentity peer, ChannelKind kind);
    Error named(Error error) const;

    std::unique_ptr<WaitableSocket> socket_;
    std::string address_;
    TimePoint deadline_;
    std::unique_ptr<TlsSession> tls_;
    size_t received_bytes_ = 0;
};

}  // namespace kdfs
