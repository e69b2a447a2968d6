#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/task.h"
#include "kdfs/rt/transport.h"

#include <map>
#include <memory>
#include <optional>
#include <string>

namespace kdfs {

class RpcConnection;

struct RpcRequest {
    MessageType type{};
    Buffer body;
    BufferChain payload;
    // After this the caller no longer waits.
    TimePoint deadline;
    uint64_t trace_id = 0;
    uint64_t job_tag = 0;
    // Whence it came; also the way to call back.
    std::shared_ptr<RpcConnection> connection;
};

struct RpcReply {
    Buffer body;
    BufferChain payload;

    RpcReply() = default;
    explicit RpcReply(Buffer b) : body(std::move(b)) {}
    RpcReply(Buffer b, BufferChain p) : body(std::move(b)), payload(std::move(p)) {}
};

// What a call carries besides its type. A class with constructors, because g++ 12 frees aggregate
// temporaries twice in statements with co_await.
struct RpcCall {
    MessageType type{};
    Buffer body;
    BufferChain payload;
    TimePoint deadline;
    uint64_t trace_id = 0;
    uint64_t job_tag = 0;

    RpcCall(MessageType t, Buffer b, TimePoint d) : type(t), body(std::move(b)), deadline(d) {}
    RpcCall(MessageType t, Buffer b, BufferChain p, TimePoint d)
        : type(t), body(std::move(b)), payload(std::move(p)), deadline(d) {}
};

// Serves one request. Runs on the loop; may suspend. The error of a failed Result travels to the
// caller as it is.
using RpcHandler = Function<Task<Result<RpcReply>>(RpcRequest)>;

// Both ends of a connection may call the other. Answers come in any order.
// Bounds: kInFlightMax requests served at once per connection, more are answered kOverloaded at
// once.
class RpcConnection : public std::enable_shared_from_this<RpcConnection> {
public:
    static constexpr size_t kInFlightMax = 4096;

    // Serves incoming requests with `handler` (which outlives the connection; may be null: all are
    // refused), in `scope`.
    static std::shared_ptr<RpcConnection> start(Env& env,
                                                TaskScope& scope,
                                                std::shared_ptr<Connection> connection,
                                                RpcHandler* handler);
    ~RpcConnection();

    // kTimeout after the deadline, kUnreachable if the connection breaks first, else the peer's
    // answer or error.
    Task<Result<RpcReply>> call(RpcCall call);
    // Sends a request whose answer nobody waits for.
    void notify(MessageType type, Buffer body);
    bool open() const { return !close_reason_.has_value(); }
    void close(Error reason);
    // Completes when the connection is gone.
    Event& closed() { return closed_; }
    const PeerIdentity& peer() const { return connection_->peer(); }
    uint64_t queued_bytes() const { return connection_->queued_bytes(); }
    // An identity for tables of connections; never reused within a process.
    uint64_t id() const { return id_; }

private:
    RpcConnection(Env& env,
                  TaskScope& scope,
                  std::shared_ptr<Connection> connection,
                  RpcHandler* handler);
    void on_frame(Frame frame);
    void on_response(Frame frame);
    void on_close(Error reason);
    Task<void> serve(std::shared_ptr<RpcConnection> self, RpcRequest request, uint64_t request_id);

    Env& env_;
    TaskScope& scope_;
    std::shared_ptr<Connection> connection_;
    RpcHandler* handler_;
    uint64_t id_;
    uint64_t next_request_ = 1;
    size_t serving_ = 0;
    std::map<uint64_t, Completion<Result<RpcReply>>*> waiting_;
    std::optional<Error> close_reason_;
    Event closed_;
};

// Accepts connections on one address and serves them all with one handler.
class RpcServer {
public:
    // Sees each new connection before its first request, and each that went. May be empty.
    struct Hooks {
        Function<void(std::shared_ptr<RpcConnection>)> on_open;
        Function<void(std::shared_ptr<RpcConnection>)> on_close;
    };
    RpcServer(Env& env, RpcHandler handler);
    ~RpcServer();
    void set_hooks(Hooks hooks) { hooks_ = std::move(hooks); }
    // Also accepts on `address`. Its listener lives as long as the server.
    Task<Status> listen(std::string address);
    // The real address of the first listener, with the port that was chosen.
    std::string address() const;
    const std::map<uint64_t, std::shared_ptr<RpcConnection>>& connections() const {
        return connections_;
    }
    // Stops listening, closes every connection and waits for the requests being served.
    Task<void> stop();

private:
    void accept(std::shared_ptr<Connection> connection);
    Task<void> watch(std::shared_ptr<RpcConnection> connection);

    Env& env_;
    RpcHandler handler_;
    Hooks hooks_;
    std::vector<std::unique_ptr<Listener>> listeners_;
    std::map<uint64_t, std::shared_ptr<RpcConnection>> connections_;
    TaskScope scope_;
};

// A way to one address that connects when first needed and again after a loss. Calls fail fast with
// kUnreachable while the peer cannot be reached; who wants to try again does so. Failed attempts
// are spaced kReconnectDelayMin to kReconnectDelayMax apart.
class RpcChannel {
public:
    static constexpr Duration kReconnectDelayMin = std::chrono::milliseconds(20);
    static constexpr Duration kReconnectDelayMax = std::chrono::milliseconds(500);
    static constexpr Duration kConnectTimeout = std::chrono::seconds(2);

    RpcChannel(Env& env, std::string address, ChannelKind kind, RpcHandler handler = {});
    ~RpcChannel();
    Task<Result<RpcReply>> call(RpcCall call);
    // The connection in use, connecting first if there is none.
    Task<Result<std::shared_ptr<RpcConnection>>> connection();
    const std::string& address() const { return address_; }
    Task<void> stop();

private:
    Task<void> connect();

    Env& env_;
    std::string address_;
    ChannelKind kind_;
    RpcHandler handler_;
    std::shared_ptr<RpcConnection> connection_;
    std::optional<Error> last_error_;
    TimePoint next_attempt_{};
    Duration delay_ = kReconnectDelayMin;
    bool connecting_ = false;
    bool stopped_ = false;
    Event attempt_done_;
    TaskScope scope_;
};

}  // namespace kdfs
