#include "mds/recall.h"

#include "kdfs/proto/wire.h"

#include <algorithm>

namespace kdfs::mds {

Task<void> Recaller::stop() { co_await scope_.close(); }

Task<void> Recaller::recall(std::vector<Conflict> conflicts) {
    std::vector<std::shared_ptr<Call>> calls;
    calls.reserve(conflicts.size());
    for (const Conflict& c : conflicts) {
        std::shared_ptr<Call> call = join(c);
        if (!call->awaited && !call->done.is_set()) {
            call->awaited = true;
            contest(c.session);
        }
        calls.push_back(std::move(call));
    }
    for (const std::shared_ptr<Call>& call : calls) {
        co_await call->done.wait();
    }
}

void Recaller::start(const std::vector<Conflict>& conflicts) {
    for (const Conflict& c : conflicts) {
        join(c);
    }
}

std::shared_ptr<Recaller::Call> Recaller::join(const Conflict& conflict) {
    Key key(conflict.ino, conflict.session);
    auto found = calls_.find(key);
    if (found != calls_.end()) {
        found->second->keep = std::min(found->second->keep, conflict.keep);
        return found->second;
    }
    auto call = std::make_shared<Call>();
    call->keep = conflict.keep;
    calls_[key] = call;
    scope_.spawn_now(run(key, call));
    return call;
}

bool Recaller::stands(const Key& key, pb::LeaseMode keep) const {
    auto holding = state_.leases->holding(key.second, key.first);
    return holding && holding->mode > keep;
}

Task<void> Recaller::run(Key key, std::shared_ptr<Call> call) {
    TimePoint give_up_at = state_.env.now() + state_.sessions.lease() * kAnswerLeases;
    while (!state_.stopping && stands(key, call->keep)) {
        Session* session = state_.sessions.find(key.second);
        if (session == nullptr) {
            state_.leases->drop(key.second, key.first);
            break;
        }
        session->contested = session->contested || call->awaited;
        if (state_.env.now() >= give_up_at) {
            give_up(key.second);
        }
        auto connection = state_.connection_of(key.second);
        bool answered = false;
        if (connection && !session->dead) {
            answered = co_await ask(key, call, std::move(connection));
        }
        if (!answered && !state_.stopping && stands(key, call->keep)) {
            co_await state_.sessions_changed.wait_until(state_.env.now() + kRetryDelay);
        }
    }
    calls_.erase(key);
    call->done.set();
    if (call->awaited) {
        settle(key.second);
    }
}

void Recaller::contest(SessionId session) {
    ++awaited_[session];
    if (Session* found = state_.sessions.find(session)) {
        found->contested = true;
    }
}

void Recaller::settle(SessionId session) {
    auto waits = awaited_.find(session);
    if (--waits->second != 0) {
        return;
    }
    awaited_.erase(waits);
    Session* found = state_.sessions.find(session);
    if (found != nullptr && found->resumed) {
        // Nobody is in its way any more.
        found->contested = false;
    }
}

Task<bool> Recaller::ask(Key key,
                         std::shared_ptr<Call> call_state,
                         std::shared_ptr<RpcConnection> connection) {
    pb::RecallRequest request;
    request.set_ino(key.first.value);
    request.set_keep(call_state->keep);
    request.set_lease_seq(state_.leases->holding(key.second, key.first)->lease_seq);
    Duration patience = state_.sessions.lease() * kAnswerLeases;
    RpcCall call(MessageType::kRecall, encode(request), state_.env.now() + patience);
    auto reply = co_await connection->call(std::move(call));
    if (!reply.ok() || state_.stopping) {
        co_return false;
    }
    auto body = decode<pb::RecallReply>(reply->body);
    if (!body.ok() || body->released().ino() != key.first.value ||
        !pb::LeaseMode_IsValid(body->released().keep())) {
        connection->close(Error(Errc::kMalformed, "answer to a recall cannot be read"));
        co_return false;
    }
    auto before = state_.leases->holding(key.second, key.first);
    // An answer about an older grant: the newer one is still on its way to the client.
    bool current = !before || body->released().lease_seq() >= before->lease_seq;
    if (body->released().keep() != pb::LEASE_NONE && body->released().still_open()) {
        // Whoever has it open may be writing; the next question leaves it nothing.
        call_state->keep = pb::LEASE_NONE;
    }
    state_.env.fault_point("mds.recall.before_take");
    Status taken = co_await take_(key.second, body->released());
    if (taken.ok() && current && before && before->mode == pb::LEASE_EXCLUSIVE) {
        state_.leases->note_recall(key.first, state_.env.now());
    }
    co_return taken.ok() && current;
}

void Recaller::give_up(SessionId id) {
    Session* session = state_.sessions.find(id);
    if (session->dead || session->doomed) {
        return;
    }
    LogEvent(state_.env.log(), LogLevel::kError, "session does not give a lease back: ended")
        .with("session", id)
        .with("name", session->name);
    // The sessions' watcher takes it from here.
    session->doomed = true;
    state_.sessions_changed.pulse();
}

}  // namespace kdfs::mds
