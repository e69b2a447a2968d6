#pragma once

#include "kdfs/rt/function.h"
#include "kdfs/rt/sync.h"
#include "mds/lease_table.h"
#include "mds/state.h"

#include <chrono>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace kdfs::mds {

// Takes leases back from their holders: asks each over its session's connection, once however many
// operations wait, and hands what it answers to `take`. A session that cannot be asked or does not
// answer stands until its lease is over and is then taken for dead; its leases go when that is
// done.
// Bounds: a session that renews its lease but does not answer within kAnswerLeases leases counts as
// dead too.
class Recaller {
public:
    static constexpr int kAnswerLeases = 4;
    static constexpr Duration kRetryDelay = std::chrono::milliseconds(20);

    // Applies what the session gives back: dirty sizes first, then the lease.
    using Take = Function<Task<Status>(SessionId, pb::ReleaseOne)>;

    // `state` outlives this.
    explicit Recaller(State& state) : state_(state), scope_(state.env.scheduler()) {}
    void set_take(Take take) { take_ = std::move(take); }
    Task<void> stop();

    // Completes when none of these stands in the way anymore, or the server stops.
    Task<void> recall(std::vector<Conflict> conflicts);
    // Whether the session is being asked for this inode.
    bool asking(InodeId ino, SessionId session) const { return calls_.contains(Key(ino, session)); }
    // The same without waiting: the sessions keep the courtesy of those in whose way nobody is.
    void start(const std::vector<Conflict>& conflicts);

private:
    struct Call {
        pb::LeaseMode keep = pb::LEASE_NONE;
        bool awaited = false;
        Event done;
    };
    using Key = std::pair<InodeId, SessionId>;

    std::shared_ptr<Call> join(const Conflict& conflict);
    bool stands(const Key& key, pb::LeaseMode keep) const;
    Task<void> run(Key key, std::shared_ptr<Call> call);
    // An operation began or ended to wait for the session.
    void contest(SessionId session);
    void settle(SessionId session);
    // One question. Whether it was answered.
    Task<bool> ask(Key key,
                   std::shared_ptr<Call> call_state,
                   std::shared_ptr<RpcConnection> connection);
    void give_up(SessionId session);

    State& state_;
    Take take_;
    std::map<Key, std::shared_ptr<Call>> calls_;
    // Awaited calls per session.
    std::map<SessionId, size_t> awaited_;
    TaskScope scope_;
};

}  // namespace kdfs::mds
