#include "storage/replicator.h"

#include "kdfs/base/mutant.h"
#include "kdfs/proto/wire.h"

#include <algorithm>
#include <utility>

namespace kdfs::storage {

// One write on its way through this member.
struct Replicator::WriteJob {
    pb::WriteRequest request;
    BufferChain payload;
    ChunkWrite change;
    ChunkKey key;
    Member member;
    RecordPtr base;
    ChunkVersion new_version;
    uint64_t trace_id = 0;
    uint64_t job_tag = 0;

    bool from_client() const { return !request.forwarded(); }
    uint64_t base_version() const { return base ? base->version.value : 0; }
    Refusals::Write as_refused() const {
        return {request.chain_version(), SessionId(request.session()), request.write_id()};
    }
};

class Replicator::WriteCargo final : public Replicator::Cargo {
public:
    WriteCargo(Replicator& replicator, const WriteJob& job)
        : replicator_(replicator), job_(job), message_(job.request) {
        message_.set_forwarded(true);
        message_.set_base_version(job.base_version());
        message_.set_new_version(job.new_version.value);
    }
    void insist(bool insists) override {
        message_.set_must_take(insists || job_.request.must_take());
    }
    RpcCall make(const pb::Chain& chain, TargetId successor, TimePoint deadline) override {
        message_.set_chain_version(chain.version());
        message_.set_target(successor.value);
        RpcCall call(MessageType::kWrite, encode(message_), job_.payload, deadline);
        call.trace_id = job_.trace_id;
        call.job_tag = job_.job_tag;
        return call;
    }
    Task<Status> mend(TargetId successor, uint64_t chain_version) override {
        auto sent = co_await replicator_.send_whole(job_.member.store,
                                                    successor,
                                                    job_.key,
                                                    chain_version,
                                                    false);
        if (!sent.ok() && sent.error().code == Errc::kCorrupt) {
            co_return co_await replicator_.repair(job_.member, job_.key);
        }
        co_return sent;
    }
    Status on_ack(const RpcReply&) override { return {}; }

private:
    Replicator& replicator_;
    const WriteJob& job_;
    pb::WriteRequest message_;
};

namespace {

// A refusal after which nobody further down has the change.
bool is_refusal(Errc code) {
    return code == Errc::kNoSpace || code == Errc::kInvalidArgument || code == Errc::kFenced ||
           code == Errc::kUnauthenticated || code == Errc::kUnimplemented;
}

// Takes a session out of the set of writers when a change of it ends.
class WriterEntry {
public:
    WriterEntry(std::multiset<SessionId>& writers, SessionId session)
        : writers_(writers), place_(writers.insert(session)) {}
    WriterEntry(const WriterEntry&) = delete;
    WriterEntry& operator=(const WriterEntry&) = delete;
    ~WriterEntry() { writers_.erase(place_); }

private:
    std::multiset<SessionId>& writers_;
    std::multiset<SessionId>::iterator place_;
};

}  // namespace

Replicator::Replicator(Env& env, ClusterView& view, PeerPool& peers)
    : env_(env), view_(view), peers_(peers), io_scope_(env.scheduler()), scope_(env.scheduler()) {}

void Replicator::add_target(ChunkStore& store) { stores_.emplace(store.target(), &store); }

ChunkStore* Replicator::store(TargetId target) const {
    auto found = stores_.find(target);
    return found == stores_.end() ? nullptr : found->second;
}

void Replicator::begin_stop() {
    stopping_ = true;
    view_.changed().pulse();
}

Task<void> Replicator::stop() {
    begin_stop();
    co_await scope_.close();
    co_await io_scope_.close();
}

void Replicator::before_map(const ClusterMap* old_map, const ClusterMap& new_map) {
    for (const pb::Chain& chain : new_map.proto().chains()) {
        for (const pb::ChainMember& member : chain.members()) {
            TargetId target(member.target());
            if (!stores_.contains(target)) {
                continue;
            }
            const pb::Chain* old =
                old_map == nullptr ? nullptr : old_map->chain(ChainId(chain.id()));
            if (old != nullptr && old->version() == chain.version()) {
                continue;
            }
            // Who served before and after has kept its place; anybody else may have lost it in a
            // map between that never came here.
            bool kept = old != nullptr && member.state() == pb::MEMBER_SERVING &&
                        member_state(*old, target) == pb::MEMBER_SERVING;
            if (!kept) {
                ++stints_[std::pair(target, ChainId(chain.id()))];
                if (!tombstones_.empty()) {
                    tombstones_.forget(target, ChainId(chain.id()));
                }
            }
        }
    }
}

Epoch Replicator::acted_epoch() {
    const auto& map = view_.map();
    if (!map) {
        return {};
    }
    for (SessionId session : writers_) {
        if (map->session_fenced(session) && !mutant("act_before_writers_end")) {
            return std::min(acted_epoch_, map->epoch());
        }
    }
    acted_epoch_ = map->epoch();
    return acted_epoch_;
}

Result<const pb::Chain*> Replicator::find_chain(ChainId chain, uint64_t version) {
    auto found = view_.chain(chain, version, env_.now());
    if (!found.ok() && found.error().code == Errc::kStaleMap) {
        // Whoever asks may know a newer map.
        view_.refresh().set();
    }
    return found;
}

// A target that failed is left to the manager; whoever asks tries elsewhere, or again later.
Error Replicator::seen_from_outside(const Member& member, Error error) const {
    const auto& failure = member.store->failure();
    return failure ? Error(Errc::kNotServing, failure->detail) : error;
}

Result<Replicator::Member> Replicator::find_writer(ChainId chain,
                                                   uint64_t version,
                                                   From from,
                                                   TargetId target) {
    KDFS_TRY_ASSIGN(const pb::Chain* found, find_chain(chain, version));
    std::vector<TargetId> path = write_path(*found);
    // The mutant takes what was meant for a place under another version for meant for its own.
    bool unchecked = mutant("skip_chain_version_check") && found->version() != version;
    if (from == From::kClient && !unchecked) {
        target = head_of(*found);
    } else if (from == From::kClient) {
        auto here = std::find_if(path.begin(), path.end(), [this](TargetId member) {
            return stores_.contains(member);
        });
        target = here != path.end() ? *here : target;
    }
    auto place = std::find(path.begin(), path.end(), target);
    if (place == path.end() || !stores_.contains(target) ||
        (from == From::kMember && place == path.begin() && !unchecked)) {
        return Error(Errc::kNotServing,
                     "storage node " + std::to_string(view_.node().value) + " is not the " +
                         (from == From::kClient ? "head" : "successor") + " of chain " +
                         std::to_string(chain.value));
    }
    Member member;
    member.store = stores_.at(target);
    member.target = target;
    member.chain = chain;
    member.stint = stints_[std::pair(target, chain)];
    member.position = static_cast<size_t>(place - path.begin());
    if (member.store->failure()) {
        return Error(Errc::kNotServing, member.store->failure()->detail);
    }
    return member;
}

bool Replicator::in_place(const Member& member) const {
    auto stint = stints_.find(std::pair(member.target, member.chain));
    const pb::Chain* chain = view_.map() ? view_.map()->chain(member.chain) : nullptr;
    if (chain == nullptr) {
        return false;
    }
    if (stint == stints_.end() || (stint->second != member.stint && !mutant("forget_lost_place"))) {
        return false;
    }
    pb::MemberState state = member_state(*chain, member.target);
    return state == pb::MEMBER_SERVING || state == pb::MEMBER_SYNCING;
}

Semaphore& Replicator::admission(size_t position) {
    if (position == 0) {
        return head_bytes_;
    }
    return position == 1 ? second_bytes_
                         : rest_bytes_[std::min(position - 2, rest_bytes_.size() - 1)];
}

Task<Result<SemaphoreHold>> Replicator::admit(Semaphore* semaphore, uint64_t bytes) {
    if (semaphore->waiting() >= kAdmissionQueueMax) {
        co_return Error(Errc::kOverloaded,
                        "storage node " + std::to_string(view_.node().value) +
                            " has too many requests under way; try again");
    }
    co_await semaphore->acquire(bytes);
    co_return SemaphoreHold(*semaphore, bytes);
}

Task<Result<RpcReply>> Replicator::write(RpcRequest request) {
    WriteJob job;
    KDFS_CO_TRY(decode_into(job.request, request.body));
    request.body = Buffer();
    job.trace_id = request.trace_id;
    job.job_tag = request.job_tag;
    ChainId chain(job.request.chain());
    From from = job.from_client() ? From::kClient : From::kMember;
    TargetId target(job.request.target());
    KDFS_CO_TRY_ASSIGN(job.member, find_writer(chain, job.request.chain_version(), from, target));
    auto admitted = co_await admit(&admission(job.member.position), request.payload.size() + 1);
    if (!admitted.ok()) {
        co_return std::move(admitted).error();
    }
    KDFS_CO_TRY_ASSIGN(job.change, check_write(job.request, request.payload));
    job.change.redo = job.request.sync() && request.payload.size() <= ChunkStore::kRedoBytesMax;
    job.payload = std::move(request.payload);
    job.key = key_of(job.request.chain(), job.request.chunk());

    ChunkSlots::Ref slot(slots_, ChunkSlots::Key(job.member.target, job.key));
    SemaphoreHold locked;
    if (!mutant("write_without_lock")) {
        locked = co_await slot->mutex.lock();
    }
    // The wait may have been long: the map and the fences are looked at again.
    KDFS_CO_TRY_ASSIGN(job.member, find_writer(chain, job.request.chain_version(), from, target));
    if (job.from_client()) {
        KDFS_CO_TRY(view_.check_session(SessionId(job.request.session())));
    }
    WriterEntry writer(writers_, SessionId(job.request.session()));
    if (env_.now() >= request.deadline) {
        co_return Error(Errc::kTimeout, to_string(job.key) + ": the write waited too long");
    }
    auto reply = co_await locked_write(job, *slot);
    if (!reply.ok()) {
        if (reply.error().code == Errc::kNoSpace) {
            note_no_room(job);
            remember_refusal(job);
        }
        co_return seen_from_outside(job.member, reply.error());
    }
    locked.release();
    env_.fault_point("storage.write.before_sync");
    Status finished = co_await finish(job);
    if (!finished.ok()) {
        co_return seen_from_outside(job.member, finished.error());
    }
    co_return RpcReply(encode(*reply));
}

// A member that is being brought up to date and has no room must not make the chain refuse writes:
// the manager takes it out of the chain.
void Replicator::note_no_room(const WriteJob& job) {
    const pb::Chain* chain = view_.map() ? view_.map()->chain(job.member.chain) : nullptr;
    bool syncing =
        chain != nullptr && member_state(*chain, job.member.target) == pb::MEMBER_SYNCING;
    // It was refused because no slab could be added.
    uint64_t free_bytes = job.member.store->free_slab_bytes();
    if (syncing && full_.try_emplace(job.member.target, free_bytes).second) {
        LogEvent(env_.log(), LogLevel::kWarn, "no room to bring a target up to date")
            .with("target", job.member.target)
            .with("next", "remove files, or start the daemon with more --capacity");
    }
    if (syncing) {
        view_.refresh().set();
    }
}

// The sender goes by the refusal unless it insists: this write must not be done any more.
void Replicator::remember_refusal(const WriteJob& job) {
    bool final = job.from_client() || !job.request.must_take();
    if (final && job.request.session() != 0) {
        refusals_.put(ChunkSlots::Key(job.member.target, job.key), job.as_refused());
    }
}

Status Replicator::check_not_refused(const WriteJob& job) const {
    bool insists = !job.from_client() && job.request.must_take();
    if (insists || mutant("forget_refusals") ||
        !refusals_.contains(ChunkSlots::Key(job.member.target, job.key), job.as_refused())) {
        return {};
    }
    return Error(Errc::kNoSpace,
                 to_string(job.key) + ": this write was refused for want of room before; " +
                     "remove files or add targets");
}

void Replicator::describe(pb::TargetReport& report) {
    TargetId target(report.target());
    auto full = full_.find(target);
    if (full != full_.end() &&
        report.free_bytes() >= full->second + report.total_bytes() / kRoomShare) {
        full_.erase(full);
    }
    report.set_full(full_.contains(target));
    uint64_t damaged = 0;
    for (const auto& [where, key] : damaged_) {
        if (where != target) {
            continue;
        }
        ++damaged;
        if (damaged <= kDamagedNamed) {
            pb::DamagedChunk* named = report.add_damaged();
            named->set_chain(key.chain.value);
            named->set_data(key.chunk.data.value);
            named->set_index(key.chunk.index);
        }
    }
    report.set_damaged_chunks(damaged);
}

Task<Status> Replicator::finish(const WriteJob& job) {
    if (job.request.sync() && !mutant("ack_before_sync")) {
        return job.member.store->sync_change(job.key);
    }
    return job.member.store->flushed();
}

bool Replicator::is_duplicate(const WriteJob& job) const {
    if (!job.base || mutant("forget_writers")) {
        return false;
    }
    if (job.request.kind() == pb::WRITE_REPLACE) {
        // One that fits on the very chunk it brings is for blocks damaged here: it is done.
        return job.base->version == job.change.new_version && job.base->sums == job.change.sums &&
               job.base->length == job.change.data.size() && !fits_on_base(job);
    }
    const RecentWrite* recent = job.base->find_recent(SessionId(job.request.session()));
    return recent != nullptr && recent->write_id == job.request.write_id() &&
           (job.from_client() || recent->version.value == job.request.new_version());
}

// Finds the chunk's record and says whether the write fits on it.
Task<Status> Replicator::check_base(WriteJob& job) {
    auto found = co_await job.member.store->find(job.key);
    if (!found.ok() && found.error().code == Errc::kCorrupt && job.from_client()) {
        KDFS_CO_TRY(co_await repair(job.member, job.key));
        found = co_await job.member.store->find(job.key);
    }
    bool whole = job.request.kind() == pb::WRITE_REPLACE || job.request.kind() == pb::WRITE_REMOVE;
    if (!found.ok() && !(found.error().code == Errc::kCorrupt && whole)) {
        co_return std::move(found).error();
    }
    job.base = found.ok() ? *found : nullptr;
    job.new_version =
        job.from_client() ? next_version(job) : ChunkVersion(job.request.new_version());
    job.change.new_version = job.new_version;
    job.change.writer.version = job.new_version;
    if (job.from_client()) {
        co_return check_order(job);
    }
    if (fits_on_base(job) || is_duplicate(job)) {
        co_return Status();
    }
    co_return Error(Errc::kStaleVersion,
                    to_string(job.key) + " has version " + std::to_string(job.base_version()) +
                        ", the write follows " + std::to_string(job.request.base_version()));
}

// A chunk's versions never come again, also after it was removed and made anew, so that a request
// that was long on its way fits on nothing: a new chunk begins above all that this head gave out
// under this chain version, and every change of the store raises its number.
ChunkVersion Replicator::next_version(const WriteJob& job) const {
    constexpr unsigned kSeqBits = 40;
    if (job.base || mutant("versions_start_over")) {
        return ChunkVersion(job.base_version() + 1);
    }
    return ChunkVersion((job.request.chain_version() << kSeqBits) + job.member.store->last_seq() +
                        1);
}

namespace {

bool shrinks(const pb::WriteRequest& request) {
    return request.kind() == pb::WRITE_TRUNCATE || request.kind() == pb::WRITE_REMOVE;
}

}  // namespace

// A client's change that only takes away has nothing to do: there is no chunk, or there was none
// when it came first. The chunk was then made since, and a repetition must not cut it.
bool Replicator::takes_nothing(const WriteJob& job) const {
    if (!job.from_client() || !shrinks(job.request)) {
        return false;
    }
    SessionId session(job.request.session());
    uint64_t known = tombstones_.newest(ChunkSlots::Key(job.member.target, job.key), session);
    return !job.base || (session && known == job.request.write_id() && !mutant("forget_writers"));
}

// A chunk that is not there has no record to remember the change that found nothing.
void Replicator::remember_nothing_taken(const WriteJob& job) {
    if (!job.base && job.request.session() != 0) {
        ChunkRecord absent;
        absent.remember(job.change.writer);
        tombstones_.put(ChunkSlots::Key(job.member.target, job.key), absent);
    }
}

// A write of a session that is older than one the chunk has seen was overtaken by its own
// repetition.
Status Replicator::check_order(const WriteJob& job) const {
    SessionId session(job.request.session());
    uint64_t number = job.request.write_id();
    const RecentWrite* recent = job.base ? job.base->find_recent(session) : nullptr;
    if (recent != nullptr && recent->write_id == number) {
        return {};  // A repetition, which is answered.
    }
    // Also of a chunk that was removed and made anew: the removed one may have had this very write.
    uint64_t removed = tombstones_.newest(ChunkSlots::Key(job.member.target, job.key), session);
    bool overtaken = (recent != nullptr && recent->write_id > number) ||
                     (removed >= number && !takes_nothing(job));
    if (session && overtaken && !mutant("forget_writers")) {
        return Error(Errc::kStaleVersion,
                     to_string(job.key) + " already has a later write of this session");
    }
    return {};
}

bool Replicator::fits_on_base(const WriteJob& job) const {
    bool removes = job.request.kind() == pb::WRITE_REMOVE;
    if (!job.base && !removes) {
        // Versions only go up, so this would bring back a chunk that was removed since.
        ChunkVersion removed = tombstones_.version(ChunkSlots::Key(job.member.target, job.key));
        if (job.new_version <= removed && !mutant("forget_removed")) {
            return false;
        }
    }
    bool same_version =
        job.base_version() == job.request.base_version() || mutant("skip_base_check");
    if (job.request.kind() == pb::WRITE_REPLACE) {
        return same_version && (job.base ? job.base->digest() : 0) == job.request.base_digest();
    }
    return same_version || (removes && !job.base);
}

Task<Result<StagedWrite>> Replicator::stage(WriteJob& job) {
    ChunkStore* store = job.member.store;
    auto staged = co_await store->stage(job.key, job.base, job.change);
    if (staged.ok() || staged.error().code != Errc::kCorrupt || !job.from_client()) {
        co_return staged;
    }
    // The blocks to merge with are damaged here; another member has them.
    KDFS_CO_TRY(co_await repair(job.member, job.key));
    auto found = co_await store->find(job.key);
    if (!found.ok()) {
        co_return std::move(found).error();
    }
    job.base = *found;
    co_return co_await store->stage(job.key, job.base, job.change);
}

Task<Result<pb::WriteReply>> Replicator::locked_write(WriteJob& job, ChunkSlots::Slot& slot) {
    KDFS_CO_TRY(co_await check_base(job));
    pb::WriteReply reply;
    if (is_duplicate(job)) {
        co_return co_await repeated_write(job);
    }
    KDFS_CO_TRY(check_not_refused(job));
    if (takes_nothing(job)) {
        remember_nothing_taken(job);
        co_return reply;
    }
    auto staged = co_await stage(job);
    if (!staged.ok()) {
        co_return std::move(staged).error();
    }
    env_.fault_point("storage.write.after_stage");
    ChunkSlots::Pending pending(slot);
    if (job.base && job.request.kind() == pb::WRITE_REMOVE) {
        tombstones_.put(ChunkSlots::Key(job.member.target, job.key), *job.base);
    }
    WriteCargo cargo(*this, job);
    Flight flight;
    flight.member = job.member;
    // A replacement mends one member only; the next gets its own.
    bool sends = job.request.kind() != pb::WRITE_REPLACE;
    Flight* sent = sends ? &flight : nullptr;
    KDFS_CO_TRY(co_await write_and_forward(job, *staged, sent, cargo));
    env_.fault_point("storage.write.after_forward");
    // A successor may have come meanwhile. From the last look to the commit nothing waits.
    while (sends && !has_arrived(flight)) {
        KDFS_CO_TRY(co_await forward(flight, cargo));
    }
    if (!in_place(job.member) && !mutant("commit_without_place")) {
        co_return Error(Errc::kStaleMap, "the chain changed; fetch the map and try again");
    }
    reply.set_version(staged->version().value);
    reply.set_length(staged->length());
    KDFS_CO_TRY(job.member.store->commit(std::move(*staged)));
    if (!sends || job.request.kind() == pb::WRITE_REMOVE) {
        note_whole(job.member.target, job.key);
    }
    co_return reply;
}

namespace {

Task<Status> write_local(ChunkStore* store, StagedWrite* staged, bool sync) {
    Status written = co_await store->write_data(*staged);
    if (written.ok() && sync && !staged->has_redo()) {
        co_return co_await store->sync_data();
    }
    co_return written;
}

}  // namespace

Task<Status> Replicator::write_and_forward(WriteJob& job,
                                           StagedWrite& staged,
                                           Flight* flight,
                                           Cargo& cargo) {
    std::vector<Task<Status>> parts;
    parts.push_back(write_local(job.member.store, &staged, job.request.sync()));
    if (flight != nullptr) {
        parts.push_back(forward(*flight, cargo));
    }
    std::vector<Status> results = co_await when_all(io_scope_, std::move(parts));
    for (Status& result : results) {
        if (!result.ok()) {
            co_return std::move(result);
        }
    }
    co_return Status();
}

// The write was committed here before; only a sync may be left to do.
Task<Result<pb::WriteReply>> Replicator::repeated_write(WriteJob& job) {
    if (job.request.sync() && job.request.kind() != pb::WRITE_REPLACE) {
        job.new_version = job.base->find_recent(SessionId(job.request.session()))->version;
        WriteCargo cargo(*this, job);
        Flight flight;
        flight.member = job.member;
        KDFS_CO_TRY(co_await forward(flight, cargo));
    }
    pb::WriteReply reply;
    reply.set_version(job.base->version.value);
    reply.set_length(job.base->length);
    co_return reply;
}

TargetId Replicator::successor(const Member& member) const {
    const pb::Chain* chain = view_.map() ? view_.map()->chain(member.chain) : nullptr;
    return chain == nullptr ? TargetId() : successor_of(*chain, member.target);
}

bool Replicator::has_arrived(const Flight& flight) const {
    TargetId next = successor(flight.member);
    if (!next) {
        return true;
    }
    uint64_t version = view_.map()->chain(flight.member.chain)->version();
    return flight.acked == next &&
           (flight.acked_version == version || mutant("count_old_acknowledgements"));
}

Task<Status> Replicator::forward(Flight& flight, Cargo& cargo) {
    for (;;) {
        if (!in_place(flight.member)) {
            co_return Error(Errc::kStaleMap, "the chain changed; fetch the map and try again");
        }
        if (stopping_) {
            co_return Error(Errc::kCancelled, "the storage daemon is shutting down");
        }
        bool acting = view_.acting(env_.now());
        if (acting && has_arrived(flight)) {
            co_return Status();
        }
        if (acting) {
            Status sent = co_await send_once(flight, cargo, successor(flight.member));
            if (sent.ok()) {
                continue;
            }
            bool waits_for_room = sent.error().code == Errc::kNoSpace && flight.insists;
            bool gives_up = (is_refusal(sent.error().code) && !waits_for_room) ||
                            mutant("give_up_after_sending");
            if (gives_up && !flight.ever_acked) {
                co_return sent;
            }
            if (sent.error().code == Errc::kStaleMap) {
                view_.refresh().set();
            }
        }
        co_await view_.changed().wait_until(env_.now() + kForwardRetryDelay);
    }
}

Task<Status> Replicator::send_once(Flight& flight, Cargo& cargo, TargetId next) {
    // Both are looked up in one step, so that they belong together.
    std::string address = view_.address_of(next);
    const pb::Chain& chain = *view_.map()->chain(flight.member.chain);
    uint64_t version = chain.version();
    // A member that is being brought up to date and has no room is taken out of the chain.
    flight.insists = flight.ever_acked || member_state(chain, next) == pb::MEMBER_SYNCING;
    cargo.insist(flight.insists);
    RpcCall call = cargo.make(chain, next, env_.now() + kForwardTimeout);
    auto reply = co_await peers_.to(address).call(std::move(call));
    if (!reply.ok() && mutant("ack_before_tail")) {
        reply = RpcReply(encode(pb::WriteReply()));
    }
    if (reply.ok()) {
        flight.acked = next;
        flight.acked_version = version;
        flight.ever_acked = true;
        co_return cargo.on_ack(*reply);
    }
    Errc code = reply.error().code;
    if (code == Errc::kStaleVersion || code == Errc::kCorrupt) {
        co_return co_await cargo.mend(next, version);
    }
    co_return std::move(reply).error();
}

// The successor's entry of one chunk; version 0 if it has none.
Task<Result<pb::ChunkEntry>> Replicator::ask_entry(TargetId of,
                                                   ChunkKey key,
                                                   uint64_t chain_version) {
    pb::ListChunksRequest message;
    message.set_target(of.value);
    message.set_chain(key.chain.value);
    message.set_chain_version(chain_version);
    message.set_entries_max(1);
    ChunkId before = key.chunk;
    if (before.index != 0) {
        before.index -= 1;
    } else {
        before.data = DataId(before.data.value - 1);
        before.index = UINT64_MAX;
    }
    set_key(*message.mutable_after(), before);
    RpcCall call(MessageType::kListChunks, encode(message), env_.now() + kForwardTimeout);
    auto answer = co_await peers_.to(view_.address_of(of)).call(std::move(call));
    if (!answer.ok()) {
        co_return std::move(answer).error();
    }
    pb::ListChunksReply reply;
    KDFS_CO_TRY(decode_into(reply, answer->body));
    pb::ChunkEntry entry;
    if (reply.entries_size() != 0 &&
        key_of(key.chain.value, reply.entries(0).chunk()).chunk == key.chunk) {
        entry = reply.entries(0);
    }
    co_return entry;
}

Task<Status> Replicator::send_whole(ChunkStore* store,
                                    TargetId to,
                                    ChunkKey key,
                                    uint64_t chain_version,
                                    bool sync) {
    auto theirs = co_await ask_entry(to, key, chain_version);
    if (!theirs.ok()) {
        co_return std::move(theirs).error();
    }
    auto read = co_await store->read(key, 0, kPieceBytesMax);
    if (!read.ok()) {
        co_return std::move(read).error();
    }
    pb::WriteRequest message;
    message.set_chain(key.chain.value);
    message.set_chain_version(chain_version);
    set_key(*message.mutable_chunk(), key.chunk);
    message.set_forwarded(true);
    message.set_target(to.value);
    message.set_base_version(theirs->version());
    message.set_base_digest(theirs->digest());
    message.set_sync(sync);
    message.set_kind(pb::WRITE_REMOVE);
    if (read->record) {
        message.set_kind(pb::WRITE_REPLACE);
        message.set_new_version(read->record->version.value);
        message.set_checksums(pack_sums(read->sums));
        for (const RecentWrite& recent : read->record->recent) {
            if (mutant("replace_without_writers")) {
                break;
            }
            pb::RecentWrite* out = message.add_recent();
            out->set_session(recent.session.value);
            out->set_write_id(recent.write_id);
            out->set_version(recent.version.value);
        }
    }
    RpcCall call(MessageType::kWrite,
                 encode(message),
                 std::move(read->data),
                 env_.now() + kForwardTimeout);
    auto reply = co_await peers_.to(view_.address_of(to)).call(std::move(call));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return Status();
}

Task<Status> Replicator::push_chunk(TargetId from,
                                    TargetId to,
                                    ChunkKey key,
                                    uint64_t chain_version) {
    Member member;
    Status pushed = Error(Errc::kStaleMap, "the chain changed");
    for (bool repaired = false;; repaired = true) {
        {
            ChunkSlots::Ref slot(slots_, ChunkSlots::Key(from, key));
            SemaphoreHold hold = co_await slot->mutex.lock();
            KDFS_CO_TRY_ASSIGN(member, find_reader(key.chain, chain_version));
            if (member.target != from) {
                co_return Error(Errc::kNotServing, "another member of the chain is on this node");
            }
            pushed = co_await send_whole(member.store, to, key, chain_version, false);
        }
        bool here = !pushed.ok() && pushed.error().code == Errc::kCorrupt;
        if (!here || repaired) {
            break;
        }
        Status mended = co_await repair_unlocked(member, key);
        if (!mended.ok()) {
            tell_damaged(from, key, mended.error());
            co_return pushed;
        }
    }
    if (pushed.ok()) {
        note_whole(from, key);
    }
    co_return pushed;
}

}  // namespace kdfs::storage
