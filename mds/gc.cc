#include "mds/gc.h"

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
    co_await scope_.close();
    co_await parts_.close();
}

void Gc::wake() { work_.set(); }

Task<void> Gc::run() {
    while (!state_.stopping) {
        co_await work_.wait();
        work_.reset();
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
        auto batch = co_await next(after);
        if (!batch.ok()) {
            co_return false;
        }
        if (batch->empty()) {
            co_return complete;
        }
        after = batch->back().data;
        std::vector<Task<Status>> tasks;
        for (DeadData& dead : *batch) {
            tasks.push_back(collect(std::move(dead)));
        }
        std::vector<Status> results = co_await when_all(parts_, std::move(tasks));
        for (const Status& result : results) {
            complete = complete && result.ok();
        }
    }
    co_return false;
}

Task<Result<std::vector<DeadData>>> Gc::next(DataId after) {
    while (true) {
        Result<std::vector<DeadData>> found = state_.space.dead_data(after, kBatch);
        if (found.ok() || found.error().code != Errc::kWouldBlock) {
            co_return found;
        }
        KDFS_CO_TRY(co_await load_missing(state_));
    }
}

Task<Status> Gc::collect(DeadData dead) {
    std::shared_ptr<const ClusterMap> map = state_.manager.map();
    const pb::ChainTable* table = map->table(dead.layout.table());
    if (table == nullptr) {
        co_return Error(Errc::kNotServing, "chain table is not in the cluster map");
    }
    TimePoint deadline = state_.env.now() + kAttempt;
    uint64_t pieces_per_chunk = dead.layout.chunk_bytes() / piece_bytes(dead.layout);
    uint64_t chunks = (dead.size_bytes + dead.layout.chunk_bytes() - 1) / dead.layout.chunk_bytes();
    uint64_t stripes = chains_of_file(dead.layout, *table, kFileBytesMax).size();
    for (uint64_t stripe = 0; stripe < stripes; ++stripe) {
        ChainId chain = chain_of_piece(dead.layout, *table, stripe * pieces_per_chunk);
        auto removed = co_await state_.storage->remove_data(chain, dead.data, 0, deadline);
        if (!removed.ok()) {
            co_return std::move(removed).error();
        }
        if (stripe >= chunks && *removed == 0) {
            break;
        }
    }
    co_return co_await finish(dead.data);
}

Task<Status> Gc::finish(DataId data) {
    while (true) {
        KvBatch batch;
        Status done = state_.space.finish_dead_data(data, batch);
        if (done.ok()) {
            auto place = state_.log.append(batch);
            if (!place.ok()) {
                co_return std::move(place).error();
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
