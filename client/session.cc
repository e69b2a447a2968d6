#include "client/session.h"

#include "kdfs/base/mutant.h"
#include "kdfs/proto/text.h"
#include "kdfs/proto/wire.h"

#include <algorithm>
#include <utility>

namespace kdfs::client {
namespace {

constexpr Duration kOpenTimeout = std::chrono::seconds(10);
constexpr Duration kRenewTimeout = std::chrono::seconds(5);
// What the server takes.
constexpr size_t kNameBytesMax = 1024;

bool is_change(const pb::MetaRequest& request) {
    switch (request.op_case()) {
        case pb::MetaRequest::kLookup:
        case pb::MetaRequest::kGetattr:
        case pb::MetaRequest::kReaddir:
        case pb::MetaRequest::kGetxattr:
        case pb::MetaRequest::kListxattr:
        case pb::MetaRequest::kStatfs:
        case pb::MetaRequest::kSync:
        case pb::MetaRequest::kGetPolicy:
            return false;
        case pb::MetaRequest::kOpen:
            // An open without truncation gives the same result twice, until the file is closed.
            return request.open().truncate();
        default:
            return true;
    }
}

// The peer answered, as opposed to: nobody knows.
bool is_answer(const Result<RpcReply>& reply) {
    return reply.ok() ||
           (reply.error().code != Errc::kTimeout && reply.error().code != Errc::kUnreachable);
}

bool session_gone(Errc code) { return code == Errc::kFenced; }

bool hopeless(Errc code) {
    return code == Errc::kUnauthenticated || code == Errc::kWrongCluster ||
           code == Errc::kWrongVersion || code == Errc::kUnimplemented;
}

}  // namespace

bool worth_retry(Errc code) {
    ErrorClass kind = error_class(code);
    return kind == ErrorClass::kRetry || kind == ErrorClass::kRetryElsewhere ||
           kind == ErrorClass::kRefresh;
}

Session::Session(Env& env, const ClientOptions& options, LeaseHolder& holder)
    : env_(env),
      options_(options),
      holder_(holder),
      random_(env.random().fork("session")),
      channel_(env,
               options.mds_address,
               ChannelKind::kControl,
               [this](RpcRequest request) { return handle(std::move(request)); }),
      scope_(env.scheduler()) {}

Session::~Session() = default;

Task<Status> Session::start(TimePoint deadline) {
    while (true) {
        auto connection = co_await ensure_open();
        if (connection.ok()) {
            break;
        }
        if (hopeless(connection.error().code) || env_.now() >= deadline) {
            co_return std::move(connection).error();
        }
        co_await sleep_for(env_.scheduler(), kRetryDelayMin * 5);
    }
    scope_.spawn(renew_loop());
    co_return Status();
}

Task<void> Session::stop() {
    bool had_session = state_ == State::kOpen;
    state_ = State::kStopped;
    stopping_.set();
    if (had_session) {
        pb::CloseSessionRequest request;
        request.set_session(id_.value);
        RpcCall call(MessageType::kCloseSession, encode(request), env_.now() + kRenewTimeout);
        auto ignored = co_await channel_.call(std::move(call));
        (void)ignored;
    }
    usable_changed_.pulse();
    map_changed_.pulse();
    co_await channel_.stop();
    co_await scope_.close();
}

// One call on its way through attempts, connections and maybe sessions.
struct Session::CallState {
    bool change = false;  // not to be repeated under another session
    bool sent = false;
    bool fate_unknown = false;  // no attempt may follow
    uint64_t generation = 0;
    TimePoint deadline;
};

Task<Result<pb::MetaReply>> Session::call(pb::MetaRequest request) {
    struct Count {
        explicit Count(size_t& c) : counter(c) { ++counter; }
        ~Count() { --counter; }
        size_t& counter;
    };
    struct Sequence {
        Sequence(std::set<uint64_t>& all, uint64_t s) : outstanding(all), seq(s) {
            outstanding.insert(seq);
        }
        ~Sequence() { outstanding.erase(seq); }
        std::set<uint64_t>& outstanding;
        uint64_t seq;
    };
    Count count(calls_);
    std::optional<Sequence> sequence;
    CallState state;
    state.change = is_change(request);
    if (state.change) {
        request.set_seq(next_seq_++);
        sequence.emplace(outstanding_, request.seq());
    } else if (request.has_open()) {
        request.set_open_seq(next_open_seq_++);
        sequence.emplace(outstanding_opens_, request.open_seq());
    }
    state.generation = generation_;
    state.deadline = env_.now() + options_.patience;
    Duration delay = kRetryDelayMin;
    while (true) {
        auto reply = co_await call_once(request, state);
        if (reply.ok() || state.fate_unknown) {
            co_return reply;
        }
        bool lost = session_gone(reply.error().code);
        // Of damaged metadata nobody else has a copy to ask for.
        bool retry = worth_retry(reply.error().code) && reply.error().code != Errc::kCorrupt;
        if ((!retry && !lost) || env_.now() >= state.deadline || state_ == State::kStopped) {
            co_return reply;
        }
        if (lost) {
            continue;  // A new session is opened; a change that was sent ends there.
        }
        Duration jitter(random_.below(static_cast<uint64_t>(delay.count())));
        co_await stopping_.wait_until(env_.now() + delay / 2 + jitter);
        delay = std::min(delay * 2, kRetryDelayMax);
    }
}

Task<Result<pb::MetaReply>> Session::call_once(pb::MetaRequest& request, CallState& state) {
    auto connection = co_await ensure_open();
    if (!connection.ok()) {
        co_return std::move(connection).error();
    }
    if (state.sent && state.change && state.generation != generation_) {
        state.fate_unknown = true;
        co_return Error(Errc::kFenced,
                        "the session was lost while an operation was under way; whether it "
                        "happened is unknown");
    }
    state.generation = generation_;
    state.sent = true;
    request.set_session(id_.value);
    request.set_acked_below(outstanding_.empty() ? next_seq_ : *outstanding_.begin());
    request.set_opens_below(outstanding_opens_.empty() ? next_open_seq_
                                                       : *outstanding_opens_.begin());
    auto reply = co_await attempt(std::move(*connection), encode(request), state.deadline);
    if (reply.ok() && state.generation != generation_) {
        // What was granted and opened under a session that is lost went with it.
        co_return Error(Errc::kFenced, "the session was lost before the answer came");
    }
    co_return reply;
}

Task<Result<pb::MetaReply>> Session::attempt(std::shared_ptr<RpcConnection> connection,
                                             Buffer body,
                                             TimePoint deadline) {
    TimePoint sent_at = env_.now();
    uint64_t generation = generation_;
    RpcCall call(MessageType::kMeta,
                 std::move(body),
                 std::min(deadline, sent_at + kAttemptTimeout));
    auto reply = co_await connection->call(std::move(call));
    if (generation == generation_) {
        if (!reply.ok() && session_gone(reply.error().code)) {
            lose("the metadata server no longer knows the session");
        } else if (is_answer(reply)) {
            alive(sent_at);
        }
    }
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return decode<pb::MetaReply>(reply->body);
}

Task<Result<RpcReply>> Session::raw_call(MessageType type, Buffer body, TimePoint deadline) {
    auto connection = co_await ensure_open();
    if (!connection.ok()) {
        co_return std::move(connection).error();
    }
    RpcCall call(type, std::move(body), deadline);
    co_return co_await (*connection)->call(std::move(call));
}

Task<Result<std::shared_ptr<RpcConnection>>> Session::ensure_open() {
    while (true) {
        if (state_ == State::kStopped) {
            co_return Error(Errc::kCancelled, "the client is shutting down");
        }
        auto connection = co_await channel_.connection();
        if (!connection.ok()) {
            co_return std::move(connection).error();
        }
        if (id_.value != 0 && (*connection)->id() == open_connection_) {
            co_return connection;
        }
        if (!opening_) {
            opening_ = true;
            opening_done_.reset();
            scope_.spawn_now(open_session());
        }
        if (opening_) {
            co_await opening_done_.wait();
        }
        if (!opened_.ok()) {
            co_return Error(opened_.error());
        }
    }
}

Task<void> Session::open_session() {
    auto connection = co_await channel_.connection();
    if (connection.ok()) {
        opened_ = co_await open_on(std::move(*connection));
    } else {
        opened_ = std::move(connection).error();
    }
    opening_ = false;
    opening_done_.set();
}

pb::OpenSessionRequest Session::opening_request() {
    pb::OpenSessionRequest request;
    request.set_name(wire_text(options_.name, kNameBytesMax));
    request.set_node_name(wire_text(options_.node_name, kNameBytesMax));
    request.set_cluster_id(options_.cluster_id);
    request.set_attempt(++attempts_);
    if (id_.value == 0) {
        return request;  // A new session holds nothing.
    }
    request.set_resume(id_.value);
    for (pb::HeldLease& held : holder_.held(kHeldBytesMax)) {
        *request.add_held() = std::move(held);
    }
    return request;
}

Task<Status> Session::open_on(std::shared_ptr<RpcConnection> connection) {
    pb::OpenSessionRequest request = opening_request();
    if (request.ByteSizeLong() > kBodyBytesMax) {
        lose("more files have unwritten data than one request to the metadata server can name");
        request = opening_request();
    }
    TimePoint sent_at = env_.now();
    SessionId asked = id_;
    RpcCall call(MessageType::kOpenSession, encode(request), sent_at + kOpenTimeout);
    auto reply = co_await connection->call(std::move(call));
    if (!reply.ok()) {
        if (asked.value != 0 &&
            (session_gone(reply.error().code) || reply.error().code == Errc::kStaleHandle ||
             reply.error().code == Errc::kNotFound)) {
            lose("the metadata server refused to resume the session");
            co_return co_await open_on(std::move(connection));
        }
        co_return std::move(reply).error();
    }
    auto body = decode<pb::OpenSessionReply>(reply->body);
    if (!body.ok()) {
        co_return std::move(body).error();
    }
    Status adopted = co_await adopt_opened(std::move(*body), asked);
    if (!adopted.ok()) {
        co_return adopted;
    }
    open_connection_ = connection->id();
    alive(sent_at);
    scope_.spawn(reconnect_after(std::move(connection)));
    co_return Status();
}

Task<Status> Session::adopt_opened(pb::OpenSessionReply reply, SessionId asked) {
    if (reply.session() == 0) {
        co_return Error(Errc::kMalformed, "the metadata server opened session 0");
    }
    adopt_map(reply.map());
    if (!map_) {
        co_return Error(Errc::kNotServing, "the metadata server has no usable cluster map yet");
    }
    if (!options_.cluster_id.empty() && map_->proto().cluster_id() != options_.cluster_id) {
        co_return Error(Errc::kWrongCluster,
                        options_.mds_address + " serves cluster " + map_->proto().cluster_id() +
                            ", not " + options_.cluster_id);
    }
    if (reply.lease_ms() != 0) {
        lease_ = std::chrono::milliseconds(reply.lease_ms());
    }
    if (asked.value != 0 && asked.value == id_.value && reply.session() != asked.value) {
        lose("the metadata server opened a new session instead of the old one");
    }
    bool again = id_.value == reply.session();
    id_ = SessionId(reply.session());
    if (state_ == State::kStopped) {
        co_return Error(Errc::kCancelled, "the client is shutting down");
    }
    bool was_suspended = state_ == State::kSuspended;
    state_ = State::kOpen;
    if (again || was_suspended) {
        std::vector<uint64_t> refused(reply.refused().begin(), reply.refused().end());
        holder_.resumed(refused);
        if (!refused.empty()) {
            // The server lets others wait until it knows that we have heard.
            scope_.spawn(renew());
        }
    }
    co_return Status();
}

void Session::alive(TimePoint sent_at) {
    last_sent_alive_ = std::max(last_sent_alive_, sent_at);
    valid_until_ = last_sent_alive_ + lease_ - lease_ / kMarginParts;
    if (mutant("cache_past_the_lease")) {
        valid_until_ = TimePoint::max();
    }
    if (state_ == State::kSuspended && env_.now() < valid_until_) {
        state_ = State::kOpen;
        holder_.resumed({});
    }
    if (usable()) {
        usable_changed_.pulse();
    }
}

void Session::lose(const char* cause) {
    LogEvent(env_.log(), LogLevel::kError, "session lost")
        .with("session", id_)
        .with("cause", cause)
        .with("effect", "unwritten data is lost and reported by fsync and close of its files");
    ++generation_;
    id_ = SessionId();
    open_connection_ = 0;
    if (state_ != State::kStopped) {
        state_ = State::kNone;
    }
    holder_.lost();
}

Task<bool> Session::wait_usable(TimePoint until) {
    while (!usable() && state_ != State::kStopped && env_.now() < until) {
        auto connection = co_await ensure_open();
        if (!usable()) {
            TimePoint next = std::min(until, env_.now() + kRetryDelayMax);
            co_await usable_changed_.wait_until(next);
        }
    }
    co_return usable();
}

Task<bool> Session::wait_for_another(SessionId id, TimePoint until) {
    while (state_ != State::kStopped && env_.now() < until) {
        if (id_.value == 0) {
            auto connection = co_await ensure_open();
        }
        if (id_.value != 0 && id_ != id) {
            co_return true;
        }
        // While id_ is `id`, the next renewal finds out.
        co_await usable_changed_.wait_until(std::min(until, env_.now() + kRetryDelayMax));
    }
    co_return false;
}

// Comes back at once after a loss: a restarted server waits for its clients, and others for what
// this one holds.
Task<void> Session::reconnect_after(std::shared_ptr<RpcConnection> connection) {
    co_await connection->closed().wait();
    uint64_t id = connection->id();
    connection.reset();
    while (state_ != State::kStopped && open_connection_ == id) {
        auto again = co_await ensure_open();
        if (!again.ok()) {
            co_await stopping_.wait_until(env_.now() + kRetryDelayMin * 5);
        }
    }
}

void Session::check_expiry() {
    if (state_ == State::kOpen && env_.now() >= valid_until_) {
        state_ = State::kSuspended;
        LogEvent(env_.log(), LogLevel::kWarn, "session suspended")
            .with("session", id_)
            .with("cause", "no answer from the metadata server for most of the lease")
            .with("server", options_.mds_address);
        holder_.suspended();
    }
}

Task<void> Session::renew_loop() {
    TimePoint next_renewal = env_.now();
    while (state_ != State::kStopped) {
        check_expiry();
        TimePoint due = last_sent_alive_ + lease_ / kRenewalsPerLease;
        if (env_.now() >= due && env_.now() >= next_renewal) {
            next_renewal = env_.now() + lease_ / (2 * kRenewalsPerLease);
            scope_.spawn(renew());
        }
        TimePoint wake = std::max(due, next_renewal);
        if (state_ == State::kOpen) {
            wake = std::min(wake, valid_until_);
        }
        wake = std::max(wake, env_.now() + std::chrono::milliseconds(1));
        co_await stopping_.wait_until(wake);
    }
}

Task<void> Session::renew() {
    auto connection = co_await ensure_open();
    if (!connection.ok() || state_ == State::kStopped) {
        co_return;
    }
    pb::RenewRequest request;
    request.set_session(id_.value);
    request.set_map_epoch(map_ ? map_->epoch().value : 0);
    TimePoint sent_at = env_.now();
    uint64_t generation = generation_;
    RpcCall call(MessageType::kRenew, encode(request), sent_at + kRenewTimeout);
    auto reply = co_await (*connection)->call(std::move(call));
    if (generation != generation_) {
        co_return;
    }
    if (!reply.ok()) {
        if (session_gone(reply.error().code)) {
            lose("the metadata server no longer knows the session");
        } else if (reply.error().code == Errc::kTimeout) {
            // A connection that swallows requests is no use: the next attempt makes a new one.
            (*connection)->close(Error(Errc::kTimeout, "no answer to a renewal"));
        }
        co_return;
    }
    alive(sent_at);
    auto body = decode<pb::RenewReply>(reply->body);
    if (body.ok() && body->has_map()) {
        adopt_map(body->map());
    }
}

Task<Result<RpcReply>> Session::handle(RpcRequest request) {
    if (request.type == MessageType::kMapUpdate) {
        auto update = decode<pb::MapUpdate>(request.body);
        if (!update.ok()) {
            co_return std::move(update).error();
        }
        adopt_map(update->map());
        co_return RpcReply();
    }
    if (request.type != MessageType::kRecall) {
        co_return Error(Errc::kUnimplemented, "clients answer recalls and map updates only");
    }
    auto recall = decode<pb::RecallRequest>(request.body);
    if (!recall.ok()) {
        co_return std::move(recall).error();
    }
    if (!pb::LeaseMode_IsValid(recall->keep())) {
        co_return Error(Errc::kInvalidArgument, "a recall down to a lease mode that is not known");
    }
    pb::RecallReply reply = co_await holder_.recall(std::move(*recall));
    co_return RpcReply(encode(reply));
}

void Session::adopt_map(const pb::ClusterMap& proto) {
    if (proto.epoch() == 0 || (map_ && proto.epoch() <= map_->epoch().value)) {
        return;
    }
    auto made = ClusterMap::make(proto);
    if (!made.ok()) {
        LogEvent(env_.log(), LogLevel::kError, "cluster map refused")
            .with("cause", made.error().to_string());
        return;
    }
    map_ = std::move(*made);
    map_changed_.pulse();
}

Task<bool> Session::wait_newer(Epoch epoch, TimePoint until) {
    while ((!map_ || map_->epoch() <= epoch) && state_ != State::kStopped && env_.now() < until) {
        if (!querying_map_ && env_.now() >= next_map_query_) {
            querying_map_ = true;
            scope_.spawn_now(query_map());
        }
        if (!map_ || map_->epoch() <= epoch) {
            co_await map_changed_.wait_until(std::min(until, env_.now() + kMapQuerySpacing * 2));
        }
    }
    co_return map_ && map_->epoch() > epoch;
}

Task<void> Session::query_map() {
    next_map_query_ = env_.now() + kMapQuerySpacing;
    auto connection = co_await ensure_open();
    if (connection.ok()) {
        pb::GetMapRequest request;
        request.set_newer_than(map_ ? map_->epoch().value : 0);
        RpcCall call(MessageType::kGetMap, encode(request), env_.now() + kRenewTimeout);
        auto reply = co_await (*connection)->call(std::move(call));
        if (reply.ok()) {
            auto body = decode<pb::GetMapReply>(reply->body);
            if (body.ok() && body->has_map()) {
                adopt_map(body->map());
            }
        }
    }
    querying_map_ = false;
}

}  // namespace kdfs::client
