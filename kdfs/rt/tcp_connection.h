#pragma once

#include "kdfs/rt/frame_reader.h"
#include "kdfs/rt/frame_seal.h"
#include "kdfs/rt/reactor.h"
#include "kdfs/rt/tcp_handshake.h"
#include "kdfs/rt/transport.h"

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kdfs {

// Memory all connections of one loop receive into, one after the other: small frames are copied
// out of it, large bodies and payloads go straight to their own place.
struct ReceiveStage {
    static constexpr size_t kBytes = size_t{32} << 10;
    std::vector<std::byte> raw = std::vector<std::byte>(kBytes);
    std::vector<std::byte> plain = std::vector<std::byte>(kBytes);
};

// Connection over a stream socket whose ends know each other. Frames sent during one turn of the
// loop leave in one call to the kernel at its end, except that large ones leave at once.
// Bounds: kReceiveBytesPerTurn are taken from the socket before others get their turn. What is
// queued for sending is bounded by those who look at queued_bytes().
class TcpConnection : public Connection,
                      public std::enable_shared_from_this<TcpConnection>,
                      private FdHandler,
                      private FlushHandler {
public:
    static constexpr size_t kReceiveBytesPerTurn = size_t{4} << 20;
    // How long close() waits for the peer to take what is queued.
    static constexpr Duration kLinger = std::chrono::seconds(1);

    TcpConnection(Reactor& reactor, std::shared_ptr<ReceiveStage> stage, Established established);
    ~TcpConnection() override;
    TcpConnection(const TcpConnection&) = delete;
    TcpConnection& operator=(const TcpConnection&) = delete;

    void start(Handlers handlers) override;
    void send(Frame frame) override;
    uint64_t queued_bytes() const override { return queued_bytes_; }
    void close(Error reason) override;
    const PeerIdentity& peer() const override { return peer_; }

private:
    // kDraining: closed by this end, what is queued is still being written.
    enum class State { kIdle, kOpen, kDraining, kClosed };
    enum class Progress { kAll, kBlocked };
    struct OutFrame {
        FrameBytes header{};
        Buffer body;
        BufferChain payload;
        size_t bytes = 0;
    };

    void on_fd_ready(uint32_t events) override;
    void flush() override;
    void request_flush();

    void begin_receiving();
    void receive();
    Result<size_t> receive_clear();
    Result<size_t> receive_tls();
    Status decrypt();
    Status take_bytes(std::span<const std::byte> bytes);
    Status take_in_place(size_t count);
    void deliver();
    Result<size_t> receive_end(ssize_t got, int error_number) const;
    Error broken(int error_number) const;

    void write_queued();
    Result<Progress> write_clear();
    Result<Progress> write_tls();
    void drop_written(size_t bytes);
    Status encrypt_batch();
    void watch_writable(bool wanted);

    void fail(Error reason);
    void finish();
    Error named(Errc code, const std::string& text) const;

    Reactor& reactor_;
    std::shared_ptr<ReceiveStage> stage_;
    UniqueFd fd_;
    std::unique_ptr<TlsSession> tls_;
    FrameSeal seal_;
    FrameReader reader_;
    std::string early_;
    PeerIdentity peer_;
    std::string address_;

    State state_ = State::kIdle;
    Handlers handlers_;
    uint64_t token_ = 0;
    bool flush_requested_ = false;
    // The kernel took less than all; it says when it takes more.
    bool blocked_ = false;
    // The peer's end of the stream is there or near.
    bool hangup_ = false;
    std::deque<OutFrame> queue_;
    // Bytes of the first queued frame that were written.
    size_t front_written_ = 0;
    uint64_t queued_bytes_ = 0;
    std::string batch_;
    std::optional<Error> close_reason_;
    TimerId linger_ = 0;
};

}  // namespace kdfs
