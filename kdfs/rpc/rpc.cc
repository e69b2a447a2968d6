#include "kdfs/rpc/rpc.h"

#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/text.h"
#include "kdfs/proto/wire.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace kdfs {
namespace {

// A request without a deadline is served as if the caller waited this long.
constexpr Duration kDeadlineDefault = std::chrono::seconds(60);

uint32_t milliseconds_left(TimePoint now, TimePoint deadline) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now).count();
    return static_cast<uint32_t>(std::clamp<int64_t>(left, 1, UINT32_MAX));
}

Buffer encode_error(const Error& error) {
    pb::ErrorBody body;
    body.set_code(static_cast<uint32_t>(error.code));
    constexpr size_t kDetailBytesMax = 4096;
    body.set_detail(wire_text(error.detail, kDetailBytesMax));
    return encode(body);
}

Error decode_error(const Buffer& body) {
    auto decoded = decode<pb::ErrorBody>(body);
    if (!decoded.ok()) {
        return std::move(decoded).error();
    }
    return {errc_from_wire(decoded->code()), decoded->detail()};
}

}  // namespace

std::shared_ptr<RpcConnection> RpcConnection::start(Env& env,
                                                    TaskScope& scope,
                                                    std::shared_ptr<Connection> connection,
                                                    RpcHandler* handler) {
    std::shared_ptr<RpcConnection> self(
        new RpcConnection(env, scope, std::move(connection), handler));
    Connection::Handlers handlers;
    // Weak: the transport's connection must not keep its own user alive.
    std::weak_ptr<RpcConnection> weak = self;
    handlers.on_frame = [weak](Frame frame) {
        if (auto strong = weak.lock()) {
            strong->on_frame(std::move(frame));
        }
    };
    handlers.on_close = [weak](Error reason) {
        if (auto strong = weak.lock()) {
            strong->on_close(std::move(reason));
        }
    };
    self->connection_->start(std::move(handlers));
    return self;
}

RpcConnection::RpcConnection(Env& env,
                             TaskScope& scope,
                             std::shared_ptr<Connection> connection,
                             RpcHandler* handler)
    : env_(env), scope_(scope), connection_(std::move(connection)), handler_(handler) {
    static std::atomic<uint64_t> next_id{1};
    id_ = next_id++;
}

RpcConnection::~RpcConnection() {
    if (open()) {
        connection_->close(Error(Errc::kCancelled, "connection dropped"));
    }
}

Task<Result<RpcReply>> RpcConnection::call(RpcCall call) {
    auto self = shared_from_this();
    if (close_reason_) {
        co_return Error(Errc::kUnreachable, peer().name + ": " + close_reason_->detail);
    }
    uint64_t id = next_request_++;
    Frame frame;
    frame.header.type = static_cast<uint16_t>(call.type);
    frame.header.request_id = id;
    frame.header.trace_id = call.trace_id;
    frame.header.job_tag = call.job_tag;
    frame.header.deadline_ms = milliseconds_left(env_.now(), call.deadline);
    frame.body = std::move(call.body);
    frame.payload = std::move(call.payload);
    Completion<Result<RpcReply>> completion;
    // Leaves the table also when the waiting coroutine is destroyed.
    struct Registration {
        std::map<uint64_t, Completion<Result<RpcReply>>*>& table;
        uint64_t id;
        ~Registration() { table.erase(id); }
    };
    waiting_.emplace(id, &completion);
    Registration registration{waiting_, id};
    connection_->send(std::move(frame));
    std::optional<Result<RpcReply>> reply = co_await completion.wait_until(call.deadline);
    if (!reply) {
        co_return Error(Errc::kTimeout, peer().name + " did not answer in time");
    }
    co_return std::move(*reply);
}

void RpcConnection::notify(MessageType type, Buffer body) {
    if (close_reason_) {
        return;
    }
    Frame frame;
    frame.header.type = static_cast<uint16_t>(type);
    // Id 0: no answer is wanted.
    frame.body = std::move(body);
    connection_->send(std::move(frame));
}

void RpcConnection::close(Error reason) {
    if (!close_reason_) {
        connection_->close(std::move(reason));
    }
}

void RpcConnection::on_frame(Frame frame) {
    if (frame.header.is_response()) {
        on_response(std::move(frame));
        return;
    }
    uint64_t request_id = frame.header.request_id;
    RpcRequest request;
    request.type = static_cast<MessageType>(frame.header.type);
    request.body = std::move(frame.body);
    request.payload = std::move(frame.payload);
    request.deadline = env_.now() + (frame.header.deadline_ms == 0
                                         ? kDeadlineDefault
                                         : std::chrono::milliseconds(frame.header.deadline_ms));
    request.trace_id = frame.header.trace_id;
    request.job_tag = frame.header.job_tag;
    request.connection = shared_from_this();
    scope_.spawn_now(serve(shared_from_this(), std::move(request), request_id));
}

void RpcConnection::on_response(Frame frame) {
    auto found = waiting_.find(frame.header.request_id);
    if (found == waiting_.end()) {
        return;  // The caller stopped waiting.
    }
    if (frame.header.is_error()) {
        found->second->complete(decode_error(frame.body));
    } else {
        found->second->complete(RpcReply(std::move(frame.body), std::move(frame.payload)));
    }
}

void RpcConnection::on_close(Error reason) {
    if (close_reason_) {
        return;
    }
    close_reason_ = std::move(reason);
    for (auto& [id, completion] : waiting_) {
        completion->complete(Error(Errc::kUnreachable, peer().name + ": " + close_reason_->detail));
    }
    closed_.set();
}

Task<void> RpcConnection::serve(std::shared_ptr<RpcConnection> self,
                                RpcRequest request,
                                uint64_t request_id) {
    uint16_t type = static_cast<uint16_t>(request.type);
    Result<RpcReply> reply =
        Error(Errc::kOverloaded, "too many requests under way on this connection");
    if (handler_ == nullptr || !*handler_) {
        reply = Error(Errc::kUnimplemented, "this end takes no requests");
    } else if (serving_ < kInFlightMax) {
        ++serving_;
        reply = co_await (*handler_)(std::move(request));
        --serving_;
    }
    if (self->close_reason_ || request_id == 0) {
        co_return;
    }
    Frame frame;
    frame.header.type = type;
    frame.header.request_id = request_id;
    frame.header.flags = FrameHeader::kFlagResponse;
    if (reply.ok()) {
        frame.body = std::move(reply->body);
        frame.payload = std::move(reply->payload);
    } else {
        frame.header.flags |= FrameHeader::kFlagError;
        frame.body = encode_error(reply.error());
    }
    connection_->send(std::move(frame));
}

RpcServer::RpcServer(Env& env, RpcHandler handler)
    : env_(env), handler_(std::move(handler)), scope_(env.scheduler()) {}

RpcServer::~RpcServer() = default;

Task<Status> RpcServer::listen(std::string address) {
    Transport::AcceptHandler on_accept = [this](std::shared_ptr<Connection> connection,
                                                ChannelKind) { accept(std::move(connection)); };
    auto listener = co_await env_.transport().listen(std::move(address), std::move(on_accept));
    if (!listener.ok()) {
        co_return std::move(listener).error();
    }
    listeners_.push_back(std::move(*listener));
    co_return Status();
}

std::string RpcServer::address() const {
    return listeners_.empty() ? "" : listeners_.front()->address();
}

void RpcServer::accept(std::shared_ptr<Connection> connection) {
    auto rpc = RpcConnection::start(env_, scope_, std::move(connection), &handler_);
    connections_.emplace(rpc->id(), rpc);
    if (hooks_.on_open) {
        hooks_.on_open(rpc);
    }
    scope_.spawn_now(watch(std::move(rpc)));
}

Task<void> RpcServer::watch(std::shared_ptr<RpcConnection> connection) {
    co_await connection->closed().wait();
    connections_.erase(connection->id());
    if (hooks_.on_close) {
        hooks_.on_close(connection);
    }
}

Task<void> RpcServer::stop() {
    listeners_.clear();
    auto connections = connections_;
    for (auto& [id, connection] : connections) {
        connection->close(Error(Errc::kUnreachable, "the daemon is shutting down"));
    }
    connections.clear();
    co_await scope_.close();
}

RpcChannel::RpcChannel(Env& env, std::string address, ChannelKind kind, RpcHandler handler)
    : env_(env),
      address_(std::move(address)),
      kind_(kind),
      handler_(std::move(handler)),
      scope_(env.scheduler()) {}

RpcChannel::~RpcChannel() = default;

Task<Result<RpcReply>> RpcChannel::call(RpcCall call) {
    if (!connection_ || !connection_->open()) {
        auto connected = co_await connection();
        if (!connected.ok()) {
            co_return std::move(connected).error();
        }
    }
    co_return co_await connection_->call(std::move(call));
}

Task<Result<std::shared_ptr<RpcConnection>>> RpcChannel::connection() {
    if (connection_ && connection_->open()) {
        co_return connection_;
    }
    if (stopped_) {
        co_return Error(Errc::kCancelled, address_ + ": shutting down");
    }
    if (!connecting_) {
        if (last_error_ && env_.now() < next_attempt_) {
            co_return Error(*last_error_);
        }
        connecting_ = true;
        attempt_done_.reset();
        scope_.spawn_now(connect());
    }
    co_await attempt_done_.wait();
    if (connection_ && connection_->open()) {
        co_return connection_;
    }
    co_return last_error_ ? *last_error_
                          : Error(Errc::kUnreachable, address_ + ": connection lost");
}

Task<void> RpcChannel::connect() {
    auto connected =
        co_await env_.transport().connect(address_, kind_, env_.now() + kConnectTimeout);
    connecting_ = false;
    if (connected.ok()) {
        connection_ = RpcConnection::start(env_, scope_, std::move(*connected), &handler_);
        last_error_.reset();
        delay_ = kReconnectDelayMin;
    } else {
        last_error_ = std::move(connected).error();
        next_attempt_ = env_.now() + delay_;
        delay_ = std::min(delay_ * 2, kReconnectDelayMax);
    }
    attempt_done_.set();
}

Task<void> RpcChannel::stop() {
    stopped_ = true;
    if (connection_) {
        connection_->close(Error(Errc::kCancelled, "shutting down"));
    }
    co_await scope_.close();
    connection_.reset();
}

}  // namespace kdfs
