#pragma once

#include "kdfs/base/result.h"
#include "kdfs/rt/cluster_key.h"
#include "kdfs/rt/frame_seal.h"

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct ssl_st;
struct ssl_ctx_st;

namespace kdfs {

// What all TLS conversations of one node share: TLS 1.3 only, AES-128-GCM, a pre-shared key with
// ephemeral X25519, no certificates, no session tickets.
class TlsContext {
public:
    static Result<std::unique_ptr<TlsContext>> create(const ClusterKey& key,
                                                      std::string cluster_id,
                                                      const PeerIdentity& self);
    ~TlsContext();
    TlsContext(const TlsContext&) = delete;
    TlsContext& operator=(const TlsContext&) = delete;

    const std::string& cluster_id() const { return cluster_id_; }

private:
    friend class TlsSession;
    TlsContext() = default;

    ssl_ctx_st* context_ = nullptr;
    ClusterKey key_{};
    ClusterKey self_key_{};
    std::string cluster_id_;
    std::string self_identity_;
};

// One TLS conversation between memory and memory: what comes from the network is fed in, what is
// to go to the network is taken out. The context must outlive it.
class TlsSession {
public:
    enum class Side { kClient, kServer };
    static Result<std::unique_ptr<TlsSession>> create(const TlsContext& context, Side side);
    ~TlsSession();
    TlsSession(const TlsSession&) = delete;
    TlsSession& operator=(const TlsSession&) = delete;

    // Bytes that came from the network. They are copied.
    void feed(std::span<const std::byte> bytes);
    // Goes on with the handshake: true once both ends have proven the key, false if more must come
    // from the network. kWrongCluster, kUnauthenticated; there may then still be output (an alert)
    // that tells the peer.
    Result<bool> handshake();
    // Decrypted bytes into `out`: their number, 0 if more must come from the network.
    Result<size_t> read(std::span<std::byte> out);
    // Encrypts all of `bytes` into the output.
    Status write(std::span<const std::byte> bytes);

    // What is to be sent; consume_output() drops what was.
    std::span<const std::byte> output();
    void consume_output(size_t count);
    // Bytes fed in that TLS has not read: after the last TLS record they are the clear bytes that
    // follow it. Takes them out.
    std::string take_unread();

    // Server, after the handshake: who the client has proven to be.
    const PeerIdentity& peer() const { return peer_; }
    // Keys for the frames that follow in clear, other in each direction.
    Result<FrameSeal::Keys> export_seal_keys() const;

private:
    friend class TlsContext;
    struct Callbacks;

    TlsSession(const TlsContext& context, Side side) : context_(context), side_(side) {}
    Error failure();

    const TlsContext& context_;
    Side side_;
    ssl_st* ssl_ = nullptr;
    PeerIdentity peer_;
    // Server: the cluster the client named, if it is another one.
    std::string foreign_cluster_;
    size_t output_sent_ = 0;
};

}  // namespace kdfs
