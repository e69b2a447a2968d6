#pragma once

#include "kdfs/base/random.h"
#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/sync.h"
#include "mds/gc.h"
#include "mds/recall.h"
#include "mds/state.h"
#include "mds/trimmer.h"

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace kdfs::mds {

// Namespace operations of sessions. One attempt of an operation is one step of the loop: look for
// the remembered answer, run it on the store, look whose leases are in the way, and if there are
// none commit, grant and remember. Otherwise it loads or recalls and starts over.
// An operation never waits for a lease of its own session.
// Bounds: an operation that does not get through before its caller stops waiting ends with
// kTimeout; kExcessAtOnce leases of a session beyond its bound are recalled at a time.
class MetaService {
public:
    static constexpr size_t kExcessAtOnce = 64;
    // Turns of the loop within which an answer to a recall that has arrived is begun to be taken.
    static constexpr int kSettleTurns = 4;

    // All outlive this.
    MetaService(State& state, Recaller& recaller, Trimmer& trimmer, Gc& gc);

    Task<Result<RpcReply>> handle(RpcRequest request);
    // Takes what a session gives back: dirty sizes first, then the leases, in one step.
    Task<Result<pb::MetaReply>> release(SessionId session, pb::Release items);
    Task<Status> release_one(SessionId session, pb::ReleaseOne item);
    // The session is gone: drops all it holds and frees what only it had open.
    Task<Status> drop_session(SessionId session);
    // Frees those of the inodes that are orphans and that nobody has open. While sessions of an
    // earlier life are awaited nothing is freed: they may have any file open. What was closed by
    // then is found by the look at all orphans that comes after.
    Task<Status> free_orphans(std::vector<InodeId> inodes);

private:
    Task<Result<pb::MetaReply>> run(pb::MetaRequest request,
                                    TimePoint deadline,
                                    std::shared_ptr<RpcConnection> from);
    // Step says what has to be done before the next one.
    struct Step;
    Step step_once(const pb::MetaRequest& request, Session& session, bool settled);
    Step step(const pb::MetaRequest& request, Session& session, bool settled);
    // The leases that have to go before the session touches these inodes and, unless it is 0,
    // opens `written` for writing with `want` as its lease.
    std::vector<Conflict> conflicts(SessionId session,
                                    const std::vector<Touched>& touched,
                                    InodeId written,
                                    pb::LeaseMode want) const;
    // Whether the session's own operation has to let what it gave back before come first.
    bool must_settle(SessionId session, const std::vector<Touched>& touched, bool settled) const;
    Task<Result<pb::MetaReply>> take_release(SessionId session, pb::MetaRequest request);
    OpContext context_of(const pb::MetaRequest& request, const Session& session);
    // Commits in the turn of a successful apply().
    Status commit(const pb::MetaRequest& request, Session& session, Step& step, KvBatch& batch);
    void remember(const pb::MetaRequest& request,
                  Session& session,
                  const pb::MetaReply& reply,
                  KvBatch& batch);
    void take_effects(Effects effects);
    void keep_orphans(const Effects& effects, SessionId session, InodeId not_open);
    void grant(const pb::MetaRequest& request, SessionId session, pb::MetaReply& reply);
    void grant_entries(SessionId session, pb::MetaReply& reply);
    void grant_parent(SessionId session, pb::LeaseMode want, pb::MetaReply& reply);
    void grant_object(SessionId session, pb::LeaseMode want, pb::MetaReply& reply);
    Status refresh(pb::MetaReply& reply);
    Step replay(const pb::MetaRequest& request, SessionId session, pb::MetaReply reply);
    void recall_excess(SessionId session);
    // Of a release: whether it speaks of the last grant; what stays open after it.
    bool speaks_of_current(SessionId session, const pb::Release& items, InodeId ino) const;
    bool open_after(SessionId session, const pb::Release& items, InodeId ino) const;
    void drop_unheld_times(SessionId session, pb::Release& items) const;
    void fill_statfs(pb::MetaReply& reply);
    Task<Result<pb::MetaReply>> answer(pb::MetaReply reply, bool durable);

    State& state_;
    Recaller& recaller_;
    Trimmer& trimmer_;
    Gc& gc_;
    Random random_;
    // Releases that are being applied: how many by session and inode.
    std::map<std::pair<SessionId, InodeId>, size_t> releasing_;
    Event released_;
};

}  // namespace kdfs::mds
