#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace kdfs::mds {

// One mounted client as the server knows it.
struct Session {
    SessionId id;
    std::string name;
    std::string node_name;
    TimePoint heard{};        // last request
    uint64_t connection = 0;  // RpcConnection::id() its recalls go over; 0: none now
    // False after a restart of the server until the client came back with what it holds.
    bool resumed = false;
    // It was told of leases that it may not keep, and nothing came from it since: until then, or
    // the end of its lease, it may go by them.
    bool unheard = false;
    // Its lease ran out or was taken: refused from now on, what it held is being taken back.
    bool dead = false;
    // Somebody waits for what it holds, so its lease is not extended by courtesy.
    bool contested = false;
    // Ended by the server although it renews its lease.
    bool doomed = false;
    // Of the last OpenSessionRequest that was taken.
    uint64_t attempt = 0;
    std::vector<uint64_t> refused;
    // Exactly-once memory: answered sequence numbers that the client has not acknowledged.
    std::set<uint64_t> replied;
    uint64_t acked_below = 0;
    // Opens that change nothing and have lower numbers have ended. In memory only.
    uint64_t opens_below = 0;
    // Of those, the ones that were refused for good, and why. In memory only.
    std::map<uint64_t, Error> refusals;
};

// The sessions and their leases in time. Pure: time comes in as an argument.
//
// A client counts its lease from when it sent a request, the server from when that arrived and a
// sixteenth longer, so that clocks may drift. A session whose lease is over and in whose way nobody
// is stays kCourtesyLeases leases long, because a client that was only slow loses nothing then.
//
// After a restart the known sessions are not resumed. Until each has come back, has heard what it
// may not keep, or has run out (one lease), in_grace() is true and nobody else's operation may go
// on.
class Sessions {
public:
    static constexpr int kCourtesyLeases = 8;
    static constexpr size_t kSessionsMax = 65536;
    // Answers kept per session; a client with more unacknowledged gets kOverloaded.
    static constexpr size_t kRepliesMax = 8192;

    explicit Sessions(Duration lease) : lease_(lease) {}

    Duration lease() const { return lease_; }
    // kOverloaded at kSessionsMax.
    Result<Session*> add(Session session);
    // From the store, at a start.
    void restore(SessionId id, std::string_view name, std::string_view node_name, TimePoint now);
    // Null if unknown. Valid until the session is removed.
    Session* find(SessionId id);
    // The session of a request: kFenced if it is unknown or dead, kBusy if it has to be resumed
    // first.
    Result<Session*> check(SessionId id);
    // The same when something has come from its client, which renews its lease.
    Result<Session*> use(SessionId id, TimePoint now);
    void remove(SessionId id);
    // The connection went: the session stays until its lease is over. Which sessions used it.
    std::vector<SessionId> disconnect(uint64_t connection);

    bool in_grace() const;
    // When the session's lease is over.
    TimePoint lease_end(const Session& session) const;
    // Those of this name, to be taken for dead: marked so.
    std::vector<SessionId> take_named(std::string_view name);
    // The server itself stood still for so long and heard nobody: nobody's lease ran meanwhile.
    void excuse(Duration stall, TimePoint now);
    // Those to be taken for dead now: marked so.
    std::vector<SessionId> take_expired(TimePoint now);
    // The smallest id that is in use, or `next` if none is: all below may be fenced for good.
    SessionId floor(SessionId next) const;
    const std::map<SessionId, Session>& all() const { return sessions_; }

    // The stored record.
    static std::string key(SessionId id);
    static std::string encode(const Session& session);
    static Result<Session> decode(std::string_view key, std::string_view value);

private:
    Duration lease_;
    std::map<SessionId, Session> sessions_;
};

}  // namespace kdfs::mds
