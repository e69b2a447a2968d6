#include "kdfs/rt/tcp_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace kdfs {
namespace {

constexpr uint32_t kReadEvents = EPOLLIN | EPOLLRDHUP | EPOLLET;
// Pieces of memory one call to the kernel gathers.
constexpr size_t kVectorsMax = 64;
// From this many queued bytes on nothing is gained by waiting for the end of the turn.
constexpr uint64_t kFlushAtOnceBytes = 256 * KiB;
// Plain bytes encrypted before the result is written.
constexpr size_t kTlsBatchBytes = 256 * KiB;
// Pieces up to this size are gathered into one TLS record; larger ones are encrypted where they
// lie.
constexpr size_t kTlsGatherBytes = 16 * KiB;

// The memory of queued frames as the kernel takes it.
class Gather {
public:
    bool full() const { return count_ == vectors_.size(); }
    // Adds `bytes` without its first `skip` bytes; lowers `skip` by what it covered.
    void add(std::span<const std::byte> bytes, size_t& skip) {
        size_t left_out = std::min(skip, bytes.size());
        skip -= left_out;
        bytes = bytes.subspan(left_out);
        if (!bytes.empty() && !full()) {
            vectors_[count_++] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
        }
    }
    ssize_t send(int fd) {
        msghdr message{};
        message.msg_iov = vectors_.data();
        message.msg_iovlen = count_;
        return ::sendmsg(fd, &message, MSG_NOSIGNAL);
    }

private:
    std::array<iovec, kVectorsMax> vectors_;
    size_t count_ = 0;
};

}  // namespace

TcpConnection::TcpConnection(Reactor& reactor,
                             std::shared_ptr<ReceiveStage> stage,
                             Established established)
    : reactor_(reactor),
      stage_(std::move(stage)),
      fd_(std::move(established.fd)),
      tls_(std::move(established.tls)),
      seal_(established.seal),
      reader_(seal_),
      early_(std::move(established.early)),
      peer_(std::move(established.peer)),
      address_(std::move(established.address)) {}

TcpConnection::~TcpConnection() {
    reactor_.forget_flush(*this);
    reactor_.cancel(linger_);
    if (state_ == State::kOpen && !blocked_) {
        write_queued();
    }
    if (token_ != 0) {
        reactor_.unwatch(token_);
    }
}

Error TcpConnection::named(Errc code, const std::string& text) const {
    return {code, address_ + ": " + text};
}

void TcpConnection::start(Handlers handlers) {
    KDFS_CHECK(state_ == State::kIdle);
    state_ = State::kOpen;
    handlers_ = std::move(handlers);
    // Not inside this call: what came with the handshake is delivered in a turn of its own.
    std::weak_ptr<TcpConnection> weak = weak_from_this();
    reactor_.post([weak] {
        if (auto self = weak.lock()) {
            self->begin_receiving();
        }
    });
}

void TcpConnection::begin_receiving() {
    if (state_ != State::kOpen) {
        return;
    }
    std::string early = std::exchange(early_, {});
    Status taken = tls_ ? decrypt() : take_bytes(std::as_bytes(std::span(early)));
    if (!taken.ok()) {
        fail(named(taken.error().code, taken.error().detail));
        return;
    }
    if (state_ != State::kOpen) {
        return;
    }
    Result<uint64_t> token = reactor_.watch(fd_.get(), kReadEvents, *this);
    if (!token.ok()) {
        fail(std::move(token).error());
        return;
    }
    token_ = *token;
    watch_writable(blocked_);
}

void TcpConnection::on_fd_ready(uint32_t events) {
    // The user may drop its last reference inside a handler.
    std::shared_ptr<TcpConnection> self = shared_from_this();
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0 && blocked_) {
        write_queued();
    }
    if ((events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0) {
        hangup_ = true;
    }
    if (hangup_ || (events & EPOLLIN) != 0) {
        receive();
    }
}

void TcpConnection::receive() {
    size_t total = 0;
    while (state_ == State::kOpen) {
        Result<size_t> got = tls_ ? receive_tls() : receive_clear();
        if (!got.ok()) {
            fail(std::move(got).error());
            return;
        }
        if (*got == 0) {
            return;
        }
        total += *got;
        if (total >= kReceiveBytesPerTurn) {
            // Edge-triggered: nobody else says that there is more.
            std::weak_ptr<TcpConnection> weak = weak_from_this();
            reactor_.post([weak] {
                if (auto self = weak.lock()) {
                    self->receive();
                }
            });
            return;
        }
    }
}

Error TcpConnection::broken(int error_number) const {
    return named(Errc::kUnreachable,
                 std::string("the connection broke: ") + std::strerror(error_number));
}

Result<size_t> TcpConnection::receive_end(ssize_t got, int error_number) const {
    if (got < 0) {
        return error_number == EAGAIN ? Result<size_t>(size_t{0}) : broken(error_number);
    }
    if (reader_.inside_frame()) {
        return named(Errc::kUnreachable, "the peer closed the connection inside a frame");
    }
    return named(Errc::kUnreachable, "the peer closed the connection");
}

// Both receive functions give 0 once the socket is empty.
Result<size_t> TcpConnection::receive_clear() {
    std::span<std::byte> room = reader_.room();
    std::array<iovec, 2> vectors;
    size_t count = 0;
    if (!room.empty()) {
        vectors[count++] = {room.data(), room.size()};
    }
    vectors[count++] = {stage_->raw.data(), stage_->raw.size()};
    ssize_t got = ::readv(fd_.get(), vectors.data(), static_cast<int>(count));
    if (got <= 0) {
        return receive_end(got, errno);
    }
    auto bytes = static_cast<size_t>(got);
    size_t in_place = std::min(bytes, room.size());
    KDFS_TRY(take_in_place(in_place));
    KDFS_TRY(take_bytes(std::span(stage_->raw).first(bytes - in_place)));
    // Less than asked for: the socket is empty, and what comes next is a new edge. But the end of
    // the stream may have been part of this one.
    bool more = hangup_ || bytes == room.size() + stage_->raw.size();
    return more ? bytes : size_t{0};
}

Result<size_t> TcpConnection::receive_tls() {
    ssize_t got = ::recv(fd_.get(), stage_->raw.data(), stage_->raw.size(), 0);
    if (got <= 0) {
        return receive_end(got, errno);
    }
    auto bytes = static_cast<size_t>(got);
    tls_->feed(std::span(stage_->raw).first(bytes));
    KDFS_TRY(decrypt());
    bool more = hangup_ || bytes == stage_->raw.size();
    return more ? bytes : size_t{0};
}

Status TcpConnection::decrypt() {
    while (state_ == State::kOpen) {
        std::span<std::byte> room = reader_.room();
        bool in_place = room.size() >= stage_->plain.size();
        std::span<std::byte> to = in_place ? room : std::span(stage_->plain);
        KDFS_TRY_ASSIGN(size_t got, tls_->read(to));
        if (got == 0) {
            break;
        }
        KDFS_TRY(in_place ? take_in_place(got) : take_bytes(to.first(got)));
    }
    return {};
}

Status TcpConnection::take_in_place(size_t count) {
    KDFS_TRY(reader_.filled(count));
    if (reader_.complete()) {
        deliver();
    }
    return {};
}

Status TcpConnection::take_bytes(std::span<const std::byte> bytes) {
    while (!bytes.empty() && state_ == State::kOpen) {
        KDFS_TRY_ASSIGN(size_t taken, reader_.take(bytes));
        bytes = bytes.subspan(taken);
        if (reader_.complete()) {
            deliver();
        }
    }
    return {};
}

void TcpConnection::deliver() { handlers_.on_frame(reader_.take_frame()); }

void TcpConnection::send(Frame frame) {
    if (state_ == State::kDraining || state_ == State::kClosed) {
        return;
    }
    OutFrame& out = queue_.emplace_back();
    out.header = encode_header(frame);
    seal_.seal(out.header);
    out.bytes = out.header.size() + frame.body.size() + frame.payload.size();
    out.body = std::move(frame.body);
    out.payload = std::move(frame.payload);
    queued_bytes_ += out.bytes;
    request_flush();
    if (queued_bytes_ >= kFlushAtOnceBytes && !blocked_ && state_ == State::kOpen) {
        write_queued();
    }
}

void TcpConnection::request_flush() {
    if (!flush_requested_) {
        flush_requested_ = true;
        reactor_.request_flush(*this);
    }
}

void TcpConnection::flush() {
    flush_requested_ = false;
    if (!blocked_) {
        std::shared_ptr<TcpConnection> self = shared_from_this();
        write_queued();
    }
}

void TcpConnection::write_queued() {
    if (state_ == State::kClosed) {
        return;
    }
    Result<Progress> progress = tls_ ? write_tls() : write_clear();
    if (!progress.ok()) {
        fail(std::move(progress).error());
        return;
    }
    watch_writable(*progress == Progress::kBlocked);
    if (state_ == State::kDraining && !blocked_) {
        finish();
    }
}

void TcpConnection::watch_writable(bool wanted) {
    bool changed = wanted != blocked_ || (wanted && state_ == State::kOpen);
    blocked_ = wanted;
    if (changed && token_ != 0) {
        reactor_.change_events(token_, wanted ? kReadEvents | EPOLLOUT : kReadEvents);
    }
}

Result<TcpConnection::Progress> TcpConnection::write_clear() {
    while (!queue_.empty()) {
        Gather gather;
        size_t skip = front_written_;
        for (auto frame = queue_.begin(); frame != queue_.end() && !gather.full(); ++frame) {
            gather.add(frame->header, skip);
            gather.add(frame->body.span(), skip);
            for (const Buffer& piece : frame->payload.pieces()) {
                gather.add(piece.span(), skip);
            }
        }
        ssize_t sent = gather.send(fd_.get());
        if (sent >= 0) {
            drop_written(static_cast<size_t>(sent));
        } else if (errno == EAGAIN) {
            return Progress::kBlocked;
        } else if (errno != EINTR) {
            return broken(errno);
        }
    }
    return Progress::kAll;
}

void TcpConnection::drop_written(size_t bytes) {
    queued_bytes_ -= bytes;
    front_written_ += bytes;
    while (!queue_.empty() && front_written_ >= queue_.front().bytes) {
        front_written_ -= queue_.front().bytes;
        queue_.pop_front();
    }
}

Result<TcpConnection::Progress> TcpConnection::write_tls() {
    while (true) {
        std::span<const std::byte> bytes = tls_->output();
        if (bytes.empty()) {
            if (queue_.empty()) {
                return Progress::kAll;
            }
            KDFS_TRY(encrypt_batch());
            continue;
        }
        ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent >= 0) {
            tls_->consume_output(static_cast<size_t>(sent));
        } else if (errno == EAGAIN) {
            return Progress::kBlocked;
        } else if (errno != EINTR) {
            return broken(errno);
        }
    }
}

Status TcpConnection::encrypt_batch() {
    batch_.clear();
    auto add = [this](std::span<const std::byte> bytes) -> Status {
        if (batch_.size() + bytes.size() > kTlsGatherBytes) {
            KDFS_TRY(tls_->write(std::as_bytes(std::span(batch_))));
            batch_.clear();
        }
        if (bytes.size() > kTlsGatherBytes) {
            return tls_->write(bytes);
        }
        batch_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        return {};
    };
    size_t done = 0;
    while (!queue_.empty() && done < kTlsBatchBytes) {
        const OutFrame& frame = queue_.front();
        KDFS_TRY(add(frame.header));
        KDFS_TRY(add(frame.body.span()));
        for (const Buffer& piece : frame.payload.pieces()) {
            KDFS_TRY(add(piece.span()));
        }
        done += frame.bytes;
        queued_bytes_ -= frame.bytes;
        queue_.pop_front();
    }
    return tls_->write(std::as_bytes(std::span(batch_)));
}

void TcpConnection::close(Error reason) {
    if (state_ == State::kDraining || state_ == State::kClosed) {
        return;
    }
    close_reason_ = std::move(reason);
    state_ = State::kDraining;
    if (!blocked_) {
        write_queued();
    }
    if (state_ == State::kDraining && blocked_) {
        std::weak_ptr<TcpConnection> weak = weak_from_this();
        linger_ = reactor_.call_at(reactor_.now() + kLinger, [weak] {
            if (auto self = weak.lock()) {
                self->finish();
            }
        });
    }
}

void TcpConnection::fail(Error reason) {
    if (!close_reason_) {
        close_reason_ = std::move(reason);
    }
    finish();
}

void TcpConnection::finish() {
    if (state_ == State::kClosed) {
        return;
    }
    state_ = State::kClosed;
    reactor_.cancel(std::exchange(linger_, 0));
    if (token_ != 0) {
        reactor_.unwatch(std::exchange(token_, 0));
    }
    fd_.reset();
    queue_.clear();
    queued_bytes_ = 0;
    std::weak_ptr<TcpConnection> weak = weak_from_this();
    reactor_.post([weak] {
        auto self = weak.lock();
        if (self && self->handlers_.on_close) {
            self->handlers_.on_close(*self->close_reason_);
        }
    });
}

}  // namespace kdfs
