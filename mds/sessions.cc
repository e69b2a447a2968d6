#include "mds/sessions.h"

#include "kdfs/base/codec.h"
#include "kdfs/base/mutant.h"
#include "mds/schema.h"

#include <algorithm>
#include <utility>

namespace kdfs::mds {

Result<Session*> Sessions::add(Session session) {
    if (sessions_.size() >= kSessionsMax) {
        return Error(Errc::kOverloaded,
                     "the metadata server has " + std::to_string(kSessionsMax) +
                         " sessions already: unmount unused clients");
    }
    SessionId id = session.id;
    return &(sessions_[id] = std::move(session));
}

void Sessions::restore(SessionId id,
                       std::string_view name,
                       std::string_view node_name,
                       TimePoint now) {
    Session session;
    session.id = id;
    session.name = name;
    session.node_name = node_name;
    session.heard = now;
    session.contested = true;
    sessions_[id] = std::move(session);
}

Session* Sessions::find(SessionId id) {
    auto found = sessions_.find(id);
    return found == sessions_.end() ? nullptr : &found->second;
}

Result<Session*> Sessions::check(SessionId id) {
    Session* session = find(id);
    if (session == nullptr || session->dead) {
        return Error(Errc::kFenced,
                     "session " + std::to_string(id.value) +
                         " has ended or its lease ran out: changes that were not written are "
                         "lost; open a new session");
    }
    if (!session->resumed) {
        return Error(Errc::kBusy,
                     "session " + std::to_string(id.value) +
                         ": the metadata server was restarted; resume the session first");
    }
    return session;
}

Result<Session*> Sessions::use(SessionId id, TimePoint now) {
    Result<Session*> session = check(id);
    if (session.ok()) {
        (*session)->heard = now;
        if ((*session)->unheard) {
            (*session)->unheard = false;
            (*session)->contested = false;
        }
    }
    return session;
}

void Sessions::remove(SessionId id) { sessions_.erase(id); }

std::vector<SessionId> Sessions::disconnect(uint64_t connection) {
    std::vector<SessionId> out;
    for (auto& [id, session] : sessions_) {
        if (session.connection == connection) {
            session.connection = 0;
            out.push_back(id);
        }
    }
    return out;
}

bool Sessions::in_grace() const {
    return !mutant("serve_in_grace") &&
           std::any_of(sessions_.begin(), sessions_.end(), [](const auto& s) {
               return !s.second.resumed || s.second.unheard;
           });
}

TimePoint Sessions::lease_end(const Session& session) const {
    if (mutant("end_leases_early")) {
        return session.heard + lease_ / 2;
    }
    return session.heard + lease_ + lease_ / 16;
}

std::vector<SessionId> Sessions::take_named(std::string_view name) {
    std::vector<SessionId> out;
    for (auto& [id, session] : sessions_) {
        if (session.name == name && !session.dead) {
            session.dead = true;
            out.push_back(id);
        }
    }
    return out;
}

void Sessions::excuse(Duration stall, TimePoint now) {
    for (auto& [id, session] : sessions_) {
        session.heard = std::min(now, session.heard + stall);
    }
}

std::vector<SessionId> Sessions::take_expired(TimePoint now) {
    std::vector<SessionId> out;
    for (auto& [id, session] : sessions_) {
        Duration courtesy = session.contested ? Duration(0) : lease_ * (kCourtesyLeases - 1);
        if (!session.dead && (session.doomed || now >= lease_end(session) + courtesy)) {
            session.dead = true;
            out.push_back(id);
        }
    }
    return out;
}

SessionId Sessions::floor(SessionId next) const {
    for (const auto& [id, session] : sessions_) {
        if (!session.dead) {
            return id;
        }
    }
    return next;
}

std::string Sessions::key(SessionId id) {
    std::string out(1, static_cast<char>(Table::kSession));
    Writer(out).be64(id.value);
    return out;
}

std::string Sessions::encode(const Session& session) {
    std::string out;
    Writer w(out);
    w.u8(kRecordFormat);
    w.bytes(session.name);
    w.bytes(session.node_name);
    return out;
}

Result<Session> Sessions::decode(std::string_view key, std::string_view value) {
    Reader k(key);
    k.u8();
    Session session;
    session.id = SessionId(k.be64());
    Reader v(value);
    uint8_t format = v.u8();
    session.name = v.bytes();
    session.node_name = v.bytes();
    if (!k.done() || !v.done() || format != kRecordFormat) {
        return Error(Errc::kCorrupt,
                     "session record " + std::to_string(session.id.value) + " is damaged");
    }
    return session;
}

}  // namespace kdfs::mds
