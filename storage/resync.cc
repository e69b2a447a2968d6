#include "storage/resync.h"

#include "kdfs/base/mutant.h"
#include "kdfs/proto/wire.h"

#include <algorithm>
#include <utility>

namespace kdfs::storage {
namespace {

bool known_equal(const ResyncEntry& x, const ResyncEntry& y) {
    bool same_bytes =
        (x.length == y.length && x.digest == y.digest) || mutant("compare_versions_only");
    bool decided = (!x.pending && !y.pending) || mutant("trust_pending_chunks");
    return x.version == y.version && same_bytes && x.version && decided;
}

}  // namespace

ResyncPlan plan_resync(const ResyncPage& ours, const ResyncPage& theirs) {
    ResyncPlan plan;
    for (const ResyncPage* page : {&ours, &theirs}) {
        if (page->more && !page->entries.empty()) {
            ChunkId last = page->entries.back().chunk;
            plan.next_after = plan.next_after ? std::min(*plan.next_after, last) : last;
        }
    }
    auto visible = [&](const ResyncPage& page, size_t i) {
        return i < page.entries.size() &&
               (!plan.next_after || page.entries[i].chunk <= *plan.next_after);
    };
    size_t a = 0;
    size_t b = 0;
    while (visible(ours, a) || visible(theirs, b)) {
        bool have_a = visible(ours, a);
        bool have_b = visible(theirs, b);
        if (have_a && (!have_b || ours.entries[a].chunk < theirs.entries[b].chunk)) {
            plan.differ.push_back(ours.entries[a++].chunk);
            continue;
        }
        if (have_b && (!have_a || theirs.entries[b].chunk < ours.entries[a].chunk)) {
            plan.differ.push_back(theirs.entries[b++].chunk);
            continue;
        }
        const ResyncEntry& x = ours.entries[a++];
        const ResyncEntry& y = theirs.entries[b++];
        if (!known_equal(x, y)) {
            plan.differ.push_back(x.chunk);
        }
    }
    return plan;
}

Resync::Resync(Env& env,
               ClusterView& view,
               Replicator& replicator,
               PeerPool& peers,
               RpcChannel& manager)
    : env_(env),
      view_(view),
      replicator_(replicator),
      peers_(peers),
      manager_(manager),
      io_scope_(env.scheduler()),
      scope_(env.scheduler()) {}

void Resync::map_changed() {
    if (!view_.map() || stopping_) {
        return;
    }
    for (const pb::Chain& chain : view_.map()->proto().chains()) {
        std::vector<TargetId> serving = serving_members(chain);
        std::vector<TargetId> path = write_path(chain);
        if (serving.empty() || path.size() == serving.size() ||
            replicator_.store(serving.back()) == nullptr) {
            continue;
        }
        Job job;
        job.chain = ChainId(chain.id());
        job.version = chain.version();
        job.from = serving.back();
        // The first of them; the others have it as their predecessor once it serves.
        job.to = path[serving.size()];
        if (jobs_.insert(job).second) {
            scope_.spawn(run(job));
        }
    }
}

void Resync::begin_stop() {
    stopping_ = true;
    view_.changed().pulse();
}

Task<void> Resync::stop() {
    begin_stop();
    co_await scope_.close();
    co_await io_scope_.close();
}

bool Resync::current(const Job& job) const {
    return !stopping_ && view_.chain(job.chain, job.version, env_.now()).ok();
}

Task<void> Resync::run(Job job) {
    bool equal = false;
    bool reported = false;
    while (!stopping_ && !reported) {
        const pb::Chain* chain = view_.map()->chain(job.chain);
        if (chain == nullptr || chain->version() != job.version) {
            break;
        }
        Status done = Error(Errc::kNotServing, "this daemon does not serve now");
        if (!equal) {
            co_await slots_.acquire();
            SemaphoreHold hold(slots_, 1);
            if (current(job)) {
                done = co_await compare(job);
                equal = done.ok();
            }
        }
        // Equal once is equal for as long as the chain keeps its version.
        if (equal && current(job)) {
            done = co_await report(job);
            reported = done.ok();
        }
        if (!reported) {
            LogEvent(env_.log(), LogLevel::kDebug, "resync will be tried again")
                .with("chain", job.chain)
                .with("target", job.to)
                .with("cause", done.ok() ? "" : done.error().to_string());
            bool damaged = !done.ok() && done.error().code == Errc::kCorrupt;
            Duration delay = damaged ? kDamagedDelay : kRetryDelay;
            co_await view_.changed().wait_until(env_.now() + delay);
        }
    }
    jobs_.erase(job);
    chains_done_ += reported ? 1 : 0;
    tell();
}

void Resync::tell() {
    if (!jobs_.empty() || chains_done_ == 0) {
        return;
    }
    LogEvent(env_.log(), LogLevel::kInfo, "chain members brought up to date")
        .with("chains", std::exchange(chains_done_, 0))
        .with("chunks_sent", std::exchange(chunks_sent_, 0));
}

Task<Status> Resync::compare(Job job) {
    std::optional<ChunkId> after;
    uint64_t sent = 0;
    Status damaged;
    do {
        auto plan = co_await compare_page(job, after);
        if (!plan.ok()) {
            co_return std::move(plan).error();
        }
        sent += plan->differ.size();
        if (!mutant("promote_before_synced")) {
            Status pushed = co_await push_all(job, std::move(plan->differ));
            if (!pushed.ok() && pushed.error().code != Errc::kCorrupt) {
                co_return pushed;
            }
            damaged = pushed.ok() ? damaged : std::move(pushed);
        }
        after = plan->next_after;
    } while (after);
    KDFS_CO_TRY(std::move(damaged));
    chunks_sent_ += sent;
    LogEvent(env_.log(), LogLevel::kDebug, "chain member has every chunk")
        .with("chain", job.chain)
        .with("target", job.to)
        .with("chunks_sent", sent);
    co_return Status();
}

Task<Result<ResyncPlan>> Resync::compare_page(Job job, std::optional<ChunkId> after) {
    auto ours = co_await our_page(job, after);
    if (!ours.ok()) {
        co_return std::move(ours).error();
    }
    auto theirs = co_await their_page(job, after);
    if (!theirs.ok()) {
        co_return std::move(theirs).error();
    }
    co_return plan_resync(*ours, *theirs);
}

Task<Status> Resync::push_all(Job job, std::vector<ChunkId> chunks) {
    Status damaged;
    for (size_t at = 0; at < chunks.size(); at += kWindow) {
        if (!current(job)) {
            co_return Error(Errc::kStaleMap, "the chain changed");
        }
        std::vector<Task<Status>> pushes;
        for (size_t i = at; i < std::min(chunks.size(), at + kWindow); ++i) {
            pushes.push_back(push(job, chunks[i]));
        }
        std::vector<Status> results = co_await when_all(io_scope_, std::move(pushes));
        for (Status& result : results) {
            if (!result.ok() && result.error().code != Errc::kCorrupt) {
                co_return std::move(result);
            }
            // One chunk that is lost must not keep the others from getting their copies.
            damaged = result.ok() ? damaged : std::move(result);
        }
    }
    co_return damaged;
}

Task<Status> Resync::push(Job job, ChunkId chunk) {
    ChunkKey key;
    key.chain = job.chain;
    key.chunk = chunk;
    Status pushed;
    for (int attempt = 0; attempt < kPushAttemptsMax; ++attempt) {
        env_.fault_point("resync.before_push");
        pushed = co_await replicator_.push_chunk(job.from, job.to, key, job.version);
        if (pushed.ok() || pushed.error().code == Errc::kStaleMap ||
            pushed.error().code == Errc::kCorrupt) {
            break;
        }
    }
    co_return pushed;
}

Task<Result<ResyncPage>> Resync::our_page(Job job, std::optional<ChunkId> after) {
    ChunkStore::Range range;
    range.chain = job.chain;
    range.after = after;
    range.entries_max = kPageEntries;
    auto page = co_await replicator_.store(job.from)->list(range);
    if (!page.ok()) {
        co_return std::move(page).error();
    }
    ResyncPage out;
    out.more = page->more;
    for (const ChunkStore::Listed& listed : page->chunks) {
        ChunkKey key;
        key.chain = job.chain;
        key.chunk = listed.chunk;
        ResyncEntry entry;
        entry.chunk = listed.chunk;
        entry.version = listed.version;
        entry.length = listed.length;
        entry.digest = listed.digest;
        entry.pending = replicator_.pending(job.from, key);
        out.entries.push_back(entry);
    }
    co_return out;
}

Task<Result<ResyncPage>> Resync::their_page(Job job, std::optional<ChunkId> after) {
    pb::ListChunksRequest message;
    message.set_target(job.to.value);
    message.set_chain(job.chain.value);
    message.set_chain_version(job.version);
    message.set_entries_max(kPageEntries);
    if (after) {
        set_key(*message.mutable_after(), *after);
    }
    RpcCall call(MessageType::kListChunks, encode(message), env_.now() + kCallTimeout);
    auto answer = co_await peers_.to(view_.address_of(job.to)).call(std::move(call));
    if (!answer.ok()) {
        co_return std::move(answer).error();
    }
    pb::ListChunksReply reply;
    KDFS_CO_TRY(decode_into(reply, answer->body));
    ResyncPage out;
    out.more = reply.more() && reply.entries_size() != 0;
    for (const pb::ChunkEntry& from : reply.entries()) {
        ResyncEntry entry;
        entry.chunk = key_of(job.chain.value, from.chunk()).chunk;
        entry.version = ChunkVersion(from.version());
        entry.length = from.length();
        entry.digest = from.digest();
        entry.pending = from.pending();
        out.entries.push_back(entry);
    }
    co_return out;
}

Task<Status> Resync::report(Job job) {
    pb::SyncRequest sync;
    sync.set_target(job.to.value);
    pb::SyncChain* chain = sync.add_chains();
    chain->set_chain(job.chain.value);
    chain->set_chain_version(job.version);
    RpcCall sync_call(MessageType::kSync, encode(sync), env_.now() + kCallTimeout);
    auto synced = co_await peers_.to(view_.address_of(job.to)).call(std::move(sync_call));
    if (!synced.ok() && !mutant("promote_before_disk_sync")) {
        co_return std::move(synced).error();
    }
    env_.fault_point("resync.before_report");
    pb::SyncDoneRequest done;
    done.set_chain(job.chain.value);
    done.set_chain_version(job.version);
    done.set_target(job.to.value);
    RpcCall done_call(MessageType::kSyncDone, encode(done), env_.now() + kCallTimeout);
    auto reported = co_await manager_.call(std::move(done_call));
    if (!reported.ok()) {
        view_.refresh().set();
        co_return std::move(reported).error();
    }
    co_return Status();
}

}  // namespace kdfs::storage
