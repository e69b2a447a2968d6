#include "storage/scrubber.h"

#include "storage/chunk_messages.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace kdfs::storage {
namespace {

constexpr char kStateFormat = 1;

ChunkKey key_of(const pb::DamagedChunk& chunk) {
    ChunkKey out;
    out.chain = ChainId(chunk.chain());
    out.chunk.data = DataId(chunk.data());
    out.chunk.index = chunk.index();
    return out;
}

}  // namespace

Scrubber::Scrubber(Env& env, ClusterView& view, Replicator& replicator, Resync& resync)
    : env_(env), view_(view), replicator_(replicator), resync_(resync), scope_(env.scheduler()) {}

void Scrubber::start(const std::vector<ChunkStore*>& stores) {
    for (ChunkStore* store : stores) {
        Job& job = jobs_[store->target()];
        job.store = store;
        scope_.spawn(run(&job));
    }
}

void Scrubber::map_changed() {
    for (auto& [target, job] : jobs_) {
        if (has_work(job)) {
            job.wake.set();
        }
    }
}

void Scrubber::begin_stop() {
    stopping_ = true;
    for (auto& [target, job] : jobs_) {
        job.wake.set();
    }
}

Task<void> Scrubber::stop() {
    begin_stop();
    co_await scope_.close();
}

void Scrubber::describe(pb::TargetReport& report) const {
    auto job = jobs_.find(TargetId(report.target()));
    if (job != jobs_.end() && job->second.state.progress().number() != 0) {
        *report.mutable_scrub() = job->second.state.progress();
    }
}

pb::ScrubOrder Scrubber::order() const {
    return view_.map() ? view_.map()->proto().scrub() : pb::ScrubOrder();
}

bool Scrubber::has_work(const Job& job) const {
    pb::ScrubOrder now = order();
    const pb::ScrubProgress& progress = job.state.progress();
    return now.running() && !job.store->failure() &&
           (progress.number() != now.number() || !progress.finished());
}

bool Scrubber::current(const Job& job) const {
    pb::ScrubOrder now = order();
    return !stopping_ && now.running() && now.number() == job.state.progress().number() &&
           !job.store->failure();
}

Task<void> Scrubber::run(Job* job) {
    co_await load(job);
    while (!stopping_) {
        if (!has_work(*job)) {
            job->wake.reset();
            co_await job->wake.wait();
            continue;
        }
        if (!current(*job)) {
            begin(job);
        }
        ChainId chain = next_chain(job);
        Status done = Error(Errc::kNotServing, "the other chains are not served here now");
        if (chain) {
            done = co_await scrub_chain(job, chain);
        }
        save(job);
        if (!done.ok() && has_work(*job) && !stopping_) {
            job->wake.reset();
            co_await job->wake.wait_until(env_.now() + kRetryDelay);
        }
    }
    save(job);
}

// A state that cannot be read is no reason not to look at the chunks: then all are.
Task<void> Scrubber::load(Job* job) {
    auto stored = co_await job->store->scrub_state();
    if (!stored.ok() || !*stored || (*stored)->empty() || (*stored)->front() != kStateFormat) {
        co_return;
    }
    pb::ScrubState state;
    auto bytes = static_cast<int>((*stored)->size() - 1);
    if (!state.ParseFromArray((*stored)->data() + 1, bytes)) {
        co_return;
    }
    job->state = std::move(state);
    pb::ScrubState loaded = job->state;
    for (const pb::DamagedChunk& lost : loaded.lost()) {
        ChunkKey key = key_of(lost);
        auto found = co_await job->store->find(key);
        // It may have been removed since.
        if (!found.ok() || *found) {
            replicator_.note_damaged(job->store->target(), key);
        }
    }
}

void Scrubber::save(Job* job) {
    job->saved = env_.now();
    if (job->state.progress().number() == 0) {
        return;
    }
    pb::TargetReport known;
    known.set_target(job->store->target().value);
    replicator_.describe(known);
    *job->state.mutable_lost() = known.damaged();
    Status kept =
        job->store->put_scrub_state(std::string(1, kStateFormat) + job->state.SerializeAsString());
    if (!kept.ok()) {
        LogEvent(env_.log(), LogLevel::kWarn, "progress of the scrub not kept")
            .with("target", job->store->target())
            .with("cause", kept.error().to_string());
    }
}

void Scrubber::begin(Job* job) {
    job->state.Clear();
    job->state.mutable_progress()->set_number(order().number());
    job->pace = env_.now();
    LogEvent(env_.log(), LogLevel::kInfo, "scrub begins")
        .with("target", job->store->target())
        .with("number", order().number())
        .with("bytes_per_second", order().bytes_per_second());
}

ChainId Scrubber::next_chain(Job* job) {
    pb::ScrubState& state = job->state;
    std::set<uint64_t> done(state.chains_done().begin(), state.chains_done().end());
    TargetId target = job->store->target();
    ChainId next;
    uint64_t chains = 0;
    uint64_t left = 0;
    for (const pb::Chain& chain : view_.map()->proto().chains()) {
        pb::MemberState member = member_state(chain, target);
        if (member == pb::MEMBER_NONE) {
            continue;
        }
        ++chains;
        left += done.contains(chain.id()) ? 0 : 1;
        bool ready = member == pb::MEMBER_SERVING && !done.contains(chain.id());
        if (ready && (!next || chain.id() == state.chain())) {
            next = ChainId(chain.id());
        }
    }
    state.mutable_progress()->set_chains(chains);
    state.mutable_progress()->set_chains_done(chains - left);
    state.mutable_progress()->set_waiting(left != 0 && !next);
    if (left == 0 && !view_.map()->proto().chains().empty()) {
        finish(job);
    }
    if (next && next.value != state.chain()) {
        state.set_chain(next.value);
        state.clear_after();
    }
    return next;
}

void Scrubber::finish(Job* job) {
    pb::ScrubProgress& progress = *job->state.mutable_progress();
    progress.set_finished(true);
    // Its order changes no more.
    job->state.clear_chains_done();
    job->state.clear_chain();
    LogEvent(env_.log(), LogLevel::kInfo, "scrub ends")
        .with("target", job->store->target())
        .with("number", progress.number())
        .with("chunks", progress.chunks())
        .with("damaged", progress.damaged())
        .with("repaired", progress.repaired())
        .with("unrepairable", progress.unrepairable())
        .with("unequal", progress.unequal());
    view_.refresh().set();
}

Task<Status> Scrubber::scrub_chain(Job* job, ChainId chain) {
    KDFS_CO_TRY(co_await check_chunks(job, chain));
    KDFS_CO_TRY(co_await compare_members(job, chain));
    job->state.add_chains_done(chain.value);
    co_return Status();
}

Task<Status> Scrubber::check_chunks(Job* job, ChainId chain) {
    for (bool more = true; more;) {
        ChunkStore::Range range;
        range.chain = chain;
        range.entries_max = kPageEntries;
        if (job->state.has_after()) {
            range.after = storage::key_of(chain.value, job->state.after()).chunk;
        }
        auto page = co_await job->store->list(range);
        if (!page.ok()) {
            co_return std::move(page).error();
        }
        for (const ChunkStore::Listed& listed : page->chunks) {
            if (!current(*job)) {
                co_return Error(Errc::kCancelled, "the scrub ends");
            }
            ChunkKey key;
            key.chain = chain;
            key.chunk = listed.chunk;
            co_await check_chunk(job, key);
        }
        more = page->more;
    }
    co_return Status();
}

Task<void> Scrubber::check_chunk(Job* job, ChunkKey key) {
    Replicator::Checked checked = co_await replicator_.check_chunk(job->store->target(), key);
    if (!current(*job)) {
        co_return;
    }
    pb::ScrubProgress& progress = *job->state.mutable_progress();
    progress.set_chunks(progress.chunks() + 1);
    progress.set_bytes(progress.bytes() + checked.bytes);
    if (checked.damaged) {
        progress.set_damaged(progress.damaged() + 1);
        bool whole = checked.outcome.ok();
        progress.set_repaired(progress.repaired() + (whole ? 1 : 0));
        progress.set_unrepairable(progress.unrepairable() + (whole ? 0 : 1));
    }
    set_key(*job->state.mutable_after(), key.chunk);
    if (env_.now() >= job->saved + kSaveEvery) {
        save(job);
    }
    // For a damaged one all members were read.
    uint64_t cost = checked.damaged ? kDamagedCost : checked.bytes;
    co_await keep_pace(job, cost);
}

// The head's word counts, so it is the one who compares.
Task<Status> Scrubber::compare_members(Job* job, ChainId id) {
    const pb::Chain* chain = view_.map()->chain(id);
    if (chain == nullptr || head_of(*chain) != job->store->target()) {
        co_return Status();
    }
    Resync::Job pair;
    pair.chain = id;
    pair.version = chain->version();
    pair.from = job->store->target();
    for (TargetId other : serving_members(*chain)) {
        if (other == pair.from) {
            continue;
        }
        pair.to = other;
        KDFS_CO_TRY(co_await compare_member(job, pair));
    }
    co_return Status();
}

Task<Status> Scrubber::compare_member(Job* job, Resync::Job pair) {
    std::optional<ChunkId> after;
    do {
        auto plan = co_await resync_.compare_page(pair, after);
        if (!plan.ok()) {
            co_return std::move(plan).error();
        }
        for (ChunkId chunk : plan->differ) {
            ChunkKey key;
            key.chain = pair.chain;
            key.chunk = chunk;
            auto levelled = co_await replicator_.level_chunk(pair.from, pair.to, key, pair.version);
            if (!current(*job)) {
                co_return Error(Errc::kCancelled, "the scrub ends");
            }
            if (!levelled.ok() && levelled.error().code == Errc::kCorrupt) {
                continue;  // Counted as damaged.
            }
            if (!levelled.ok()) {
                co_return std::move(levelled).error();
            }
            pb::ScrubProgress& progress = *job->state.mutable_progress();
            bool unequal = *levelled != Replicator::Levelled::kEqual;
            bool copied = *levelled == Replicator::Levelled::kCopied;
            progress.set_unequal(progress.unequal() + (unequal ? 1 : 0));
            progress.set_levelled(progress.levelled() + (copied ? 1 : 0));
            co_await keep_pace(job, 0);
        }
        after = plan->next_after;
    } while (after && current(*job));
    co_return Status();
}

Task<void> Scrubber::keep_pace(Job* job, uint64_t bytes) {
    uint64_t rate = std::max<uint64_t>(order().bytes_per_second(), 1);
    auto seconds = static_cast<double>(std::max(bytes, kChunkCostMin)) / static_cast<double>(rate);
    auto cost = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
    job->pace = std::max(job->pace, env_.now()) + cost;
    while (current(*job) && env_.now() < job->pace) {
        job->wake.reset();
        co_await job->wake.wait_until(job->pace);
    }
}

}  // namespace kdfs::storage
