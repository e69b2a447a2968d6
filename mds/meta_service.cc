#include "mds/meta_service.h"

#include "kdfs/base/mutant.h"
#include "kdfs/proto/wire.h"
#include "mds/layout_choice.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace kdfs::mds {
namespace {

bool is_regular(const pb::Attr& attr) { return S_ISREG(attr.mode()); }

// The inode the request opens for writing, if it does. Known by the reply only.
bool opens_for_writing(const pb::MetaRequest& request) {
    return (request.has_open() && request.open().write()) ||
           (request.has_create() && request.create().open());
}

bool wants_durable(const pb::MetaRequest& request) {
    return request.has_sync() || (request.has_flush() && request.flush().sync());
}

uint64_t not_open_ino(const pb::MetaRequest& request) {
    if (request.has_remove()) {
        return request.remove().not_open_ino();
    }
    return request.has_rename() ? request.rename().not_open_ino() : 0;
}

// A client acknowledges a request when it does not send it again: this one was on the way for long.
Status not_acknowledged(const pb::MetaRequest& request, const Session& session) {
    bool late_change = request.seq() != 0 && request.seq() < session.acked_below;
    bool late_open = request.open_seq() != 0 && request.open_seq() < session.opens_below;
    if (!late_change && !late_open) {
        return {};
    }
    uint64_t number = late_open ? request.open_seq() : request.seq();
    return Error(Errc::kInvalidArgument,
                 "request " + std::to_string(number) + " of the session was acknowledged before");
}

bool knows(pb::LeaseMode mode) { return pb::LeaseMode_IsValid(mode); }

// What a newer client, or none of ours, may ask for.
Status check_modes(const pb::MetaRequest& request) {
    const auto& given = request.release().items();
    bool known = knows(request.lookup().want()) && knows(request.lookup().want_parent()) &&
                 knows(request.getattr().want()) && knows(request.open().want()) &&
                 knows(request.create().want()) && knows(request.create().want_parent()) &&
                 knows(request.readdir().want_parent()) &&
                 std::all_of(given.begin(), given.end(), [](const pb::ReleaseOne& item) {
                     return knows(item.keep());
                 });
    return known ? Status() : Error(Errc::kInvalidArgument, "a lease mode that is not known");
}

}  // namespace

// What came of one step.
struct MetaService::Step {
    enum class Next { kAnswer, kFail, kLoad, kRecall, kWaitBusy, kSettle };
    Next next = Next::kFail;
    Error error;
    pb::MetaReply reply;
    std::vector<Conflict> conflicts;
    InodeId busy;

    static Step fail(Error e) {
        Step step;
        step.error = std::move(e);
        if (step.error.code == Errc::kWouldBlock) {
            step.next = Next::kLoad;
        }
        return step;
    }
};

MetaService::MetaService(State& state, Recaller& recaller, Trimmer& trimmer, Gc& gc)
    : state_(state),
      recaller_(recaller),
      trimmer_(trimmer),
      gc_(gc),
      random_(state.env.random().fork("layout")) {}

Task<Result<RpcReply>> MetaService::handle(RpcRequest rpc) {
    KDFS_CO_TRY_ASSIGN(pb::MetaRequest request, decode<pb::MetaRequest>(rpc.body));
    SessionId session(request.session());
    TimePoint deadline = rpc.deadline;
    Result<Session*> user = state_.use_session(session);
    if (!user.ok()) {
        co_return std::move(user).error();
    }
    KDFS_CO_TRY(check_modes(request));
    if (!mutant("drop_reply_memory")) {
        // Also of a request that changes nothing or fails, or only gives back.
        (*user)->acked_below = std::max((*user)->acked_below, request.acked_below());
        (*user)->opens_below = std::max((*user)->opens_below, request.opens_below());
    }
    Result<pb::MetaReply> reply = Error(Errc::kInvalidArgument, "empty metadata request");
    if (request.has_release()) {
        reply = co_await release(session, std::move(*request.mutable_release()));
    } else if (request.has_sync()) {
        reply = co_await answer(pb::MetaReply(), true);
    } else {
        reply = co_await run(std::move(request), deadline, std::move(rpc.connection));
    }
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return RpcReply(encode(*reply));
}

// What waits here for others is no sign of life of its client, and it is dropped with the
// connection it came over: a client that lives sends it again, one that died must not change
// anything later.
Task<Result<pb::MetaReply>> MetaService::run(pb::MetaRequest request,
                                             TimePoint deadline,
                                             std::shared_ptr<RpcConnection> from) {
    SessionId id(request.session());
    bool settled = false;
    while (true) {
        KDFS_CO_TRY_ASSIGN(Session * session, state_.sessions.check(id));
        if (from && !from->open()) {
            co_return Error(Errc::kUnreachable, "the connection of the request is gone");
        }
        if (state_.stopping || state_.env.now() >= deadline) {
            co_return Error(Errc::kTimeout,
                            "the operation did not get through in time: another client holds what "
                            "it needs, or the metadata server is stopping");
        }
        if (state_.sessions.in_grace()) {
            co_await state_.sessions_changed.wait_until(deadline);
            continue;
        }
        Step now = step_once(request, *session, settled);
        switch (now.next) {
            case Step::Next::kAnswer:
                co_return co_await answer(std::move(now.reply), wants_durable(request));
            case Step::Next::kFail:
                co_return std::move(now.error);
            case Step::Next::kLoad:
                KDFS_CO_TRY(co_await load_missing(state_));
                break;
            case Step::Next::kRecall:
                co_await recaller_.recall(std::move(now.conflicts));
                break;
            case Step::Next::kWaitBusy:
                co_await trimmer_.wait(now.busy);
                break;
            case Step::Next::kSettle:
                for (int turn = 0; turn < kSettleTurns && !settled; ++turn) {
                    co_await yield_turn(state_.env.scheduler());
                }
                if (settled) {
                    co_await released_.wait();
                }
                settled = true;
                break;
        }
    }
}

// A change that was refused for good is not tried again when it comes again: what it lacked may be
// there now, and its client goes on since.
MetaService::Step MetaService::step_once(const pb::MetaRequest& request,
                                         Session& session,
                                         bool settled) {
    uint64_t seq = request.seq();
    if (!mutant("drop_reply_memory")) {
        session.refusals.erase(session.refusals.begin(),
                               session.refusals.lower_bound(session.acked_below));
        if (auto known = session.refusals.find(seq); known != session.refusals.end()) {
            return Step::fail(known->second);
        }
    }
    Step done = step(request, session, settled);
    if (seq == 0 || seq < session.acked_below || done.next != Step::Next::kFail) {
        return done;
    }
    ErrorClass kind = error_class(done.error.code);
    if (kind == ErrorClass::kCaller || kind == ErrorClass::kFatal) {
        session.refusals.emplace(seq, done.error);
    }
    return done;
}

MetaService::Step MetaService::step(const pb::MetaRequest& request,
                                    Session& session,
                                    bool settled) {
    if (Status fresh = not_acknowledged(request, session); !fresh.ok()) {
        return Step::fail(std::move(fresh).error());
    }
    if (request.seq() != 0 && session.replied.contains(request.seq()) &&
        !mutant("drop_reply_memory")) {
        auto kept = state_.space.find_reply(session.id, request.seq());
        if (!kept.ok()) {
            return Step::fail(std::move(kept).error());
        }
        return replay(request, session.id, std::move(**kept));
    }
    if (request.seq() != 0 &&
        session.replied.size() + session.refusals.size() >= Sessions::kRepliesMax) {
        return Step::fail(
            Error(Errc::kOverloaded, "the session has too many answers it did not acknowledge"));
    }
    KvBatch batch;
    OpContext context = context_of(request, session);
    Result<pb::MetaReply> reply = state_.space.apply(request, context, batch);
    if (!reply.ok()) {
        return Step::fail(std::move(reply).error());
    }
    if (request.seq() == 0 && !batch.empty()) {
        return Step::fail(Error(Errc::kInvalidArgument,
                                "a request that changes something needs a sequence number"));
    }
    Step done;
    std::vector<Touched> touched = state_.space.touched();
    InodeId written(opens_for_writing(request) ? reply->attr().ino() : 0);
    if (written.value != 0) {
        touched.push_back({written, Access::kChange});
    }
    if (must_settle(session.id, touched, settled)) {
        done.next = Step::Next::kSettle;
        return done;
    }
    for (const Touched& t : touched) {
        if (trimmer_.busy(t.ino) && !mutant("answer_before_cut")) {
            done.busy = t.ino;
            done.next = Step::Next::kWaitBusy;
            return done;
        }
    }
    pb::LeaseMode want = request.has_open() ? request.open().want() : request.create().want();
    done.conflicts = conflicts(session.id, touched, written, want);
    if (!done.conflicts.empty() && !mutant("forget_recall")) {
        done.next = Step::Next::kRecall;
        return done;
    }
    done.reply = std::move(*reply);
    if (Status committed = commit(request, session, done, batch); !committed.ok()) {
        return Step::fail(committed.error());
    }
    return done;
}

std::vector<Conflict> MetaService::conflicts(SessionId session,
                                             const std::vector<Touched>& touched,
                                             InodeId written,
                                             pb::LeaseMode want) const {
    std::vector<Conflict> out = state_.leases->conflicts(session, touched);
    if (state_.leases->costs_read_lease(session, written, want, state_.env.now())) {
        out.push_back({written, session, pb::LEASE_NONE});
    }
    return out;
}

bool MetaService::must_settle(SessionId session,
                              const std::vector<Touched>& touched,
                              bool settled) const {
    for (const Touched& t : touched) {
        if (releasing_.contains({session, t.ino}) ||
            (!settled && recaller_.asking(t.ino, session))) {
            return true;
        }
    }
    return false;
}

OpContext MetaService::context_of(const pb::MetaRequest& request, const Session& session) {
    OpContext context;
    context.session = session.id;
    context.now = state_.env.wall_clock().now();
    context.choose_layout = [this, node = session.node_name](const pb::Policy& policy) {
        return choose_layout(*state_.manager.map(), policy, node, random_.u64());
    };
    context.is_open = [this, id = session.id, closed = not_open_ino(request)](InodeId ino) {
        if (mutant("free_open_files")) {
            return false;
        }
        return ino.value == closed ? state_.leases->open_by_other(id, ino)
                                   : state_.leases->is_open(ino);
    };
    context.holds_exclusive = [this, id = session.id](InodeId ino) {
        return state_.leases->holds_exclusive(id, ino);
    };
    if (request.has_remove() && request.remove().unwritten_lease_seq() != 0) {
        context.lease_stands = [this, id = session.id](InodeId ino, uint64_t lease_seq) {
            return state_.leases->holds_exclusive(id, ino) && !recaller_.asking(ino, id) &&
                   state_.leases->holding(id, ino)->lease_seq == lease_seq;
        };
    }
    context.written_by_other = [this, id = session.id](InodeId ino) {
        return state_.leases->written_by_other(id, ino);
    };
    return context;
}

Status MetaService::commit(const pb::MetaRequest& request,
                           Session& session,
                           Step& step,
                           KvBatch& batch) {
    Effects effects = state_.space.effects();
    if (request.seq() != 0) {
        remember(request, session, step.reply, batch);
    }
    if (!batch.empty()) {
        KDFS_TRY(state_.log.append(batch));
    }
    if (request.seq() != 0) {
        session.replied.insert(request.seq());
        session.replied.erase(session.replied.begin(),
                              session.replied.lower_bound(session.acked_below));
    }
    take_effects(effects);
    keep_orphans(effects, session.id, InodeId(not_open_ino(request)));
    grant(request, session.id, step.reply);
    step.next = Step::Next::kAnswer;
    if (effects.trim) {
        trimmer_.begin(*effects.trim);
    }
    if (effects.trim && !mutant("answer_before_cut")) {
        // The answer is kept: the next step finds it and waits for the trim.
        step.busy = effects.trim->ino;
        step.next = Step::Next::kWaitBusy;
    }
    if (request.has_statfs()) {
        fill_statfs(step.reply);
    }
    recall_excess(session.id);
    return {};
}

void MetaService::remember(const pb::MetaRequest& request,
                           Session& session,
                           const pb::MetaReply& reply,
                           KvBatch& batch) {
    Namespace::store_reply(session.id, request.seq(), reply, batch);
    session.acked_below = std::max(session.acked_below, request.acked_below());
    auto first = session.replied.begin();
    for (; first != session.replied.end() && *first < session.acked_below; ++first) {
        Namespace::forget_replies(session.id, *first, *first + 1, batch);
    }
}

void MetaService::take_effects(Effects effects) {
    for (InodeId ino : effects.freed) {
        state_.leases->forget(ino);
    }
    gc_.add(std::move(effects.died));
}

// In doubt the session that took the last name has the file open, besides whoever else has: under a
// lease it opens without saying so. It says so when not, or takes it along when it ends.
void MetaService::keep_orphans(const Effects& effects, SessionId session, InodeId not_open) {
    for (InodeId ino : effects.orphaned) {
        auto mine = state_.leases->holding(session, ino);
        if (ino != not_open && (!mine || !mine->open)) {
            state_.leases->open(session, ino, false);
        }
    }
}

void MetaService::grant(const pb::MetaRequest& request, SessionId session, pb::MetaReply& reply) {
    switch (request.op_case()) {
        case pb::MetaRequest::kLookup:
            grant_parent(session, request.lookup().want_parent(), reply);
            grant_object(session, request.lookup().want(), reply);
            break;
        case pb::MetaRequest::kGetattr:
            grant_object(session, request.getattr().want(), reply);
            break;
        case pb::MetaRequest::kOpen:
            state_.leases->open(session,
                                InodeId(request.open().ino()),
                                request.open().write(),
                                request.open_seq());
            grant_object(session, request.open().want(), reply);
            break;
        case pb::MetaRequest::kCreate:
            if (request.create().open()) {
                state_.leases->open(session, InodeId(reply.attr().ino()), true);
            }
            grant_parent(session, request.create().want_parent(), reply);
            grant_object(session, request.create().want(), reply);
            break;
        case pb::MetaRequest::kReaddir:
            if (request.readdir().want_parent() != pb::LEASE_NONE) {
                *reply.mutable_parent_grant() =
                    state_.leases->grant(session,
                                         InodeId(request.readdir().ino()),
                                         pb::LEASE_READ,
                                         state_.env.now());
            }
            if (request.readdir().attrs()) {
                grant_entries(session, reply);
            }
            break;
        default:
            break;
    }
}

void MetaService::grant_parent(SessionId session, pb::LeaseMode want, pb::MetaReply& reply) {
    if (want == pb::LEASE_NONE || reply.parent().ino() == 0) {
        return;
    }
    InodeId ino(reply.parent().ino());
    *reply.mutable_parent_grant() =
        state_.leases->grant(session, ino, pb::LEASE_READ, state_.env.now());
}

void MetaService::grant_object(SessionId session, pb::LeaseMode want, pb::MetaReply& reply) {
    if (reply.attr().ino() == 0) {
        return;
    }
    pb::LeaseMode most = is_regular(reply.attr()) ? pb::LEASE_EXCLUSIVE : pb::LEASE_READ;
    InodeId ino(reply.attr().ino());
    // What has no name ends when nobody has it open any more, without a word to others: who lost
    // the session under which it was opened must ask each time.
    auto mine = state_.leases->holding(session, ino);
    if (reply.attr().nlink() == 0 && !(mine && mine->open)) {
        most = pb::LEASE_NONE;
    }
    *reply.mutable_grant() =
        state_.leases->grant(session, ino, std::min(want, most), state_.env.now());
}

// Attributes that somebody else may be changing are left out: whoever needs them asks for them.
void MetaService::grant_entries(SessionId session, pb::MetaReply& reply) {
    for (pb::DirEntry& entry : *reply.mutable_entries()) {
        if (!entry.has_attr()) {
            continue;
        }
        InodeId ino(entry.ino());
        std::vector<Touched> read;
        read.push_back({ino, Access::kRead});
        if (!state_.leases->conflicts(session, read).empty() || trimmer_.busy(ino)) {
            entry.clear_attr();
            continue;
        }
        *entry.mutable_grant() =
            state_.leases->grant(session, ino, pb::LEASE_READ, state_.env.now());
    }
}

Status MetaService::refresh(pb::MetaReply& reply) {
    if (mutant("answer_with_old_attributes")) {
        return {};
    }
    if (reply.has_attr()) {
        KDFS_TRY(state_.space.refresh(*reply.mutable_attr()));
    }
    if (reply.has_parent()) {
        KDFS_TRY(state_.space.refresh(*reply.mutable_parent()));
    }
    if (reply.has_parent2()) {
        KDFS_TRY(state_.space.refresh(*reply.mutable_parent2()));
    }
    return {};
}

// A remembered answer opens again what it opened, but gives no new lease.
MetaService::Step MetaService::replay(const pb::MetaRequest& request,
                                      SessionId session,
                                      pb::MetaReply reply) {
    Step done;
    // Its client may have told us more since, which it would take back.
    if (Status current = refresh(reply); !current.ok()) {
        return Step::fail(std::move(current).error());
    }
    done.reply = std::move(reply);
    InodeId ino(done.reply.attr().ino());
    done.busy = ino;
    done.next = trimmer_.busy(ino) ? Step::Next::kWaitBusy : Step::Next::kAnswer;
    if (!request.has_open() && !(request.has_create() && request.create().open())) {
        return done;
    }
    auto held = state_.leases->holding(session, ino);
    if (!held || !held->open) {
        bool write = opens_for_writing(request);
        std::vector<Touched> touched;
        touched.push_back({ino, write ? Access::kChange : Access::kRead});
        done.conflicts = conflicts(session, touched, write ? ino : InodeId(), pb::LEASE_NONE);
        if (!done.conflicts.empty() && !mutant("forget_recall")) {
            done.next = Step::Next::kRecall;
            return done;
        }
        state_.leases->open(session, ino, write);
    }
    *done.reply.mutable_grant() =
        state_.leases->grant(session, ino, pb::LEASE_NONE, state_.env.now());
    return done;
}

void MetaService::recall_excess(SessionId session) {
    std::vector<Conflict> conflicts;
    for (InodeId ino : state_.leases->excess(session, kExcessAtOnce)) {
        conflicts.push_back({ino, session, pb::LEASE_NONE});
    }
    recaller_.start(conflicts);
}

void MetaService::fill_statfs(pb::MetaReply& reply) {
    pb::Policy policy;
    policy.set_replicas(reply.statfs().replicas());
    uint32_t copies = replicas_of(*state_.manager.map(), policy);
    uint64_t total = 0;
    uint64_t free = 0;
    for (const auto& [target, report] : state_.manager.membership().reports()) {
        total += report.total_bytes();
        free += report.free_bytes();
    }
    reply.mutable_statfs()->set_replicas(copies);
    reply.mutable_statfs()->set_total_bytes(total / copies);
    reply.mutable_statfs()->set_free_bytes(free / copies);
}

// Also an answer that changed nothing waits: what it saw must not be undone by a crash.
Task<Result<pb::MetaReply>> MetaService::answer(pb::MetaReply reply, bool durable) {
    state_.env.fault_point("mds.commit.before_reply");
    if (durable && !mutant("fsync_of_names_early")) {
        KDFS_CO_TRY(co_await state_.log.durable());
    } else if (!mutant("answer_before_journal")) {
        KDFS_CO_TRY(co_await state_.log.committed(state_.log.appended()));
    }
    co_return reply;
}

Task<Status> MetaService::release_one(SessionId session, pb::ReleaseOne item) {
    pb::Release items;
    *items.add_items() = std::move(item);
    auto done = co_await release(session, std::move(items));
    if (!done.ok()) {
        co_return std::move(done).error();
    }
    co_return Status();
}

Task<Result<pb::MetaReply>> MetaService::release(SessionId session, pb::Release items) {
    pb::MetaRequest request;
    request.set_session(session.value);
    *request.mutable_release() = std::move(items);
    std::vector<InodeId> inodes;
    for (const pb::ReleaseOne& item : request.release().items()) {
        inodes.emplace_back(item.ino());
        ++releasing_[{session, inodes.back()}];
    }
    auto taken = co_await take_release(session, std::move(request));
    for (InodeId ino : inodes) {
        auto found = releasing_.find({session, ino});
        if (--found->second == 0) {
            releasing_.erase(found);
        }
    }
    released_.pulse();
    if (!taken.ok()) {
        co_return taken;
    }
    co_return co_await answer(std::move(*taken), false);
}

Task<Result<pb::MetaReply>> MetaService::take_release(SessionId session, pb::MetaRequest request) {
    OpContext context;
    context.session = session;
    context.is_open = [this, session, &request](InodeId ino) {
        return open_after(session, request.release(), ino);
    };
    // What speaks of an older grant is no longer the last word on the size.
    context.holds_exclusive = [this, session, &request](InodeId ino) {
        return state_.leases->holds_exclusive(session, ino) &&
               speaks_of_current(session, request.release(), ino);
    };
    context.written_by_other = [this, session](InodeId ino) {
        return state_.leases->written_by_other(session, ino);
    };
    while (true) {
        KvBatch batch;
        context.now = state_.env.wall_clock().now();
        drop_unheld_times(session, *request.mutable_release());
        Result<pb::MetaReply> reply = state_.space.apply(request, context, batch);
        if (!reply.ok() && reply.error().code == Errc::kWouldBlock) {
            KDFS_CO_TRY(co_await load_missing(state_));
            continue;
        }
        if (!reply.ok()) {
            co_return reply;
        }
        Effects effects = state_.space.effects();
        if (!batch.empty()) {
            KDFS_CO_TRY(state_.log.append(batch));
        }
        for (const pb::ReleaseOne& item : request.release().items()) {
            state_.leases->release(session, item);
        }
        // Who keeps a lease may open it without a word for as long as it has not heard that the
        // name is gone.
        for (InodeId ino : effects.orphaned) {
            state_.leases->count_as_open(ino);
        }
        take_effects(std::move(effects));
        co_return std::move(*reply);
    }
}

bool MetaService::speaks_of_current(SessionId session,
                                    const pb::Release& items,
                                    InodeId ino) const {
    auto mine = state_.leases->holding(session, ino);
    for (const pb::ReleaseOne& item : items.items()) {
        if (item.ino() == ino.value) {
            return !mine || item.lease_seq() >= mine->lease_seq;
        }
    }
    return false;
}

bool MetaService::open_after(SessionId session, const pb::Release& items, InodeId ino) const {
    if (state_.sessions.in_grace()) {
        return true;  // Who has not come back yet may have it open; see free_orphans().
    }
    auto mine = state_.leases->holding(session, ino);
    bool still = mine && mine->open;
    for (const pb::ReleaseOne& item : items.items()) {
        if (item.ino() == ino.value) {
            still = state_.leases->stays_open(session, item) ||
                    state_.leases->stays_leased(session, item);
        }
    }
    return still || state_.leases->held_by_other(session, ino);
}

// A release that comes again, after others may have set the times, has nothing to say of them.
// Its size counts for as long as its cut does.
void MetaService::drop_unheld_times(SessionId session, pb::Release& items) const {
    for (pb::ReleaseOne& item : *items.mutable_items()) {
        if (!state_.leases->holding(session, InodeId(item.ino()))) {
            item.clear_mtime();
        }
    }
}

Task<Status> MetaService::drop_session(SessionId session) {
    std::vector<InodeId> opened = state_.leases->drop_session(session);
    co_return co_await free_orphans(std::move(opened));
}

Task<Status> MetaService::free_orphans(std::vector<InodeId> inodes) {
    for (InodeId ino : inodes) {
        while (!state_.sessions.in_grace() && !state_.leases->is_open(ino)) {
            KvBatch batch;
            Result<bool> freed = state_.space.is_orphan(ino);
            // Who has a lease, of before a restart, may have opened it without a word.
            if (freed.ok() && *freed && state_.leases->count_as_open(ino)) {
                break;
            }
            if (freed.ok() && *freed) {
                freed = state_.space.release_orphan(ino, batch);
            }
            if (!freed.ok() && freed.error().code == Errc::kWouldBlock) {
                KDFS_CO_TRY(co_await load_missing(state_));
                continue;
            }
            if (freed.ok() && *freed) {
                Effects effects = state_.space.effects();
                KDFS_CO_TRY(state_.log.append(batch));
                take_effects(std::move(effects));
            }
            break;
        }
    }
    co_return Status();
}

}  // namespace kdfs::mds
