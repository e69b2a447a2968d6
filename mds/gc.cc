#include "mds/gc.h"

#include "kdfs/base/mutant.h"
#include "kdfs/proto/layout.h"

#include <algorithm>
#include <utility>

namespace kdfs::mds {

void Gc::start() {
    work_.set();
    scope_.spawn(run());
}

Task<void> Gc::stop() {
    work_.set();
    hurry_.set();
    co_await scope_.close();
    co_await parts_.close();
}

void Gc::add(std::vector<DeadData> died) {
    for (DeadData& dead : died) {
        if (queue_.size() >= kQueueMax) {
            // Where the reading of the store is, is not known here: once more from the start.
            unread_again_ = true;
        } else {
            queue_.emplace(dead.data, std::move(dead));
        }
    }
    if (!died.empty()) {
        work_.set();
    }
    if (queue_.size() >= kGatherMax) {
        hurry_.set();
    }
}

Task<void> Gc::run() {
    while (!state_.stopping) {
        co_await work_.wait();
        co_await hurry_.wait_until(state_.env.now() + kGather);
        work_.reset();
        hurry_.reset();
        bool complete = co_await pass();
        if (!complete && !state_.stopping) {
            co_await state_.sessions_changed.wait_until(state_.env.now() + kRetryDelay);
            work_.set();
        }
    }
}

Task<bool> Gc::pass() {
    bool complete = true;
    DataId after;
    while (!state_.stopping) {
        Status filled = co_await refill();
        complete = complete && filled.ok();
        std::vector<DeadData> batch = batch_after(after);
        if (batch.empty()) {
            co_return complete && !unread_ && !unread_again_;
        }
        after = batch.back().data;
        std::vector<DataId> ids;
        std::vector<Task<Status>> tasks;
        for (DeadData& dead : batch) {
            ids.push_back(dead.data);
            tasks.push_back(collect(std::move(dead)));
        }
        std::vector<Status> results = co_await when_all(parts_, std::move(tasks));
        std::vector<DataId> collected;
        for (size_t i = 0; i < results.size(); ++i) {
            complete = complete && results[i].ok();
            if (results[i].ok()) {
                collected.push_back(ids[i]);
            }
        }
        Status finished = co_await finish(std::move(collected));
        complete = complete && finished.ok();
    }
    co_return false;
}

Task<Status> Gc::refill() {
    while (true) {
        if (!unread_ && unread_again_) {
            unread_ = true;
            unread_again_ = false;
            read_to_ = DataId();
        }
        if (!unread_ || queue_.size() + kPage > kQueueMax) {
            co_return Status();
        }
        auto page = co_await stored(read_to_);
        if (!page.ok()) {
            co_return std::move(page).error();
        }
        unread_ = page->size() == kPage;
        for (DeadData& dead : *page) {
            read_to_ = dead.data;
            queue_.emplace(dead.data, std::move(dead));
        }
    }
}

Task<Result<std::vector<DeadData>>> Gc::stored(DataId after) {
    while (true) {
        Result<std::vector<DeadData>> found = state_.space.dead_data(after, kPage);
        if (found.ok() || found.error().code != Errc::kWouldBlock) {
            co_return found;
        }
        KDFS_CO_TRY(co_await load_missing(state_));
    }
}

std::vector<DeadData> Gc::batch_after(DataId after) const {
    std::vector<DeadData> batch;
    for (auto at = queue_.upper_bound(after); at != queue_.end() && batch.size() < kBatch; ++at) {
        batch.push_back(at->second);
    }
    return batch;
}

Task<Status> Gc::collect(DeadData dead) {
    const auto& sessions = state_.sessions.all();
    auto lingering = lingering_.find(dead.data);
    if (lingering != lingering_.end() && state_.env.now() < lingering->second.until &&
        !sessions.empty() && sessions.begin()->first <= lingering->second.newest) {
        co_return Error(Errc::kBusy, "the file's writers may still be there");
    }
    bool last = dead.size_bytes < kEndUnknown || lingering != lingering_.end();
    DataId data = dead.data;
    KDFS_CO_TRY(co_await remove_everywhere(std::move(dead)));
    if (!last) {
        Lingering entry;
        entry.until = state_.env.now() + state_.sessions.lease() * kLingerLeases;
        if (!state_.sessions.all().empty()) {
            entry.newest = state_.sessions.all().rbegin()->first;
        }
        lingering_.emplace(data, entry);
        co_return Error(Errc::kBusy, "the file's writers may still be there");
    }
    co_return Status();
}

Task<Status> Gc::remove_everywhere(DeadData dead) {
    std::shared_ptr<const ClusterMap> map = state_.manager.map();
    const pb::ChainTable* table = map->table(dead.layout.table());
    if (table == nullptr) {
        co_return Error(Errc::kNotServing, "chain table is not in the cluster map");
    }
    TimePoint deadline = state_.env.now() + kAttempt;
    uint64_t pieces_per_chunk = dead.layout.chunk_bytes() / piece_bytes(dead.layout);
    uint64_t chunks = (dead.size_bytes + dead.layout.chunk_bytes() - 1) / dead.layout.chunk_bytes();
    uint64_t stripes = chains_of_file(dead.layout, *table, kFileBytesMax).size();
    for (uint64_t stripe = 0; stripe < std::min(stripes, chunks); ++stripe) {
        ChainId chain = chain_of_piece(dead.layout, *table, stripe * pieces_per_chunk);
        auto removed = co_await state_.storage->remove_data(chain, dead.data, 0, deadline);
        state_.env.fault_point("mds.gc.between_chains");
        if (!removed.ok() && mutant("collect_once")) {
            break;
        }
        if (!removed.ok()) {
            co_return std::move(removed).error();
        }
    }
    co_return Status();
}

Task<Status> Gc::finish(std::vector<DataId> collected) {
    while (true) {
        KvBatch batch;
        Status done = state_.space.finish_dead_data(collected, batch);
        if (done.ok() && !batch.empty()) {
            auto place = state_.log.append(batch);
            if (!place.ok()) {
                co_return std::move(place).error();
            }
        }
        if (done.ok()) {
            for (DataId data : collected) {
                queue_.erase(data);
                lingering_.erase(data);
            }
            co_return Status();
        }
        if (done.error().code != Errc::kWouldBlock) {
            co_return done;
        }
        KDFS_CO_TRY(co_await load_missing(state_));
    }
}

}  // namespace kdfs::mds
