#include "mds/trimmer.h"

#include "kdfs/proto/layout.h"

#include <utility>

namespace kdfs::mds {

Task<Status> Trimmer::start() {
    while (true) {
        Result<std::vector<Trim>> trims = state_.space.trims(kResumedMax);
        if (trims.ok()) {
            for (const Trim& trim : *trims) {
                begin(trim);
            }
            co_return Status();
        }
        if (trims.error().code != Errc::kWouldBlock) {
            co_return std::move(trims).error();
        }
        KDFS_CO_TRY(co_await load_missing(state_));
    }
}

Task<void> Trimmer::stop() {
    co_await scope_.close();
    co_await parts_.close();
}

void Trimmer::begin(const Trim& trim) {
    std::shared_ptr<Busy>& busy = busy_[trim.ino];
    if (!busy) {
        busy = std::make_shared<Busy>();
    }
    ++busy->trims;
    scope_.spawn(run(trim));
}

Task<void> Trimmer::wait(InodeId ino) {
    auto found = busy_.find(ino);
    if (found == busy_.end()) {
        co_return;
    }
    std::shared_ptr<Busy> busy = found->second;
    co_await busy->done.wait();
}

Task<Status> Trimmer::wait_until(InodeId ino, TimePoint deadline) {
    while (true) {
        auto found = busy_.find(ino);
        if (found == busy_.end()) {
            co_return Status();
        }
        if (state_.stopping || state_.env.now() >= deadline) {
            co_return Error(Errc::kTimeout,
                            "inode " + std::to_string(ino.value) +
                                " is still being cut: not all of its chains serve");
        }
        std::shared_ptr<Busy> busy = found->second;
        co_await busy->done.wait_until(deadline);
    }
}

Task<void> Trimmer::run(Trim trim) {
    InodeId ino = trim.ino;
    while (!state_.stopping) {
        Status done = co_await attempt(trim);
        state_.env.fault_point("mds.trim.before_finish");
        if (done.ok()) {
            done = co_await finish(trim);
        }
        if (done.ok()) {
            break;
        }
        LogEvent(state_.env.log(), LogLevel::kWarn, "truncated file is not cut yet, trying again")
            .with("inode", ino)
            .with("cause", done.error().to_string());
        co_await state_.sessions_changed.wait_until(state_.env.now() + StorageClient::kRetryDelay);
    }
    std::shared_ptr<Busy> busy = busy_[ino];
    if (--busy->trims == 0) {
        busy_.erase(ino);
        busy->done.set();
    }
}

Task<Status> Trimmer::attempt(Trim trim) {
    std::shared_ptr<const ClusterMap> map = state_.manager.map();
    const pb::ChainTable* table = map->table(trim.layout.table());
    if (table == nullptr) {
        co_return Error(Errc::kCorrupt,
                        "inode " + std::to_string(trim.ino.value) + " refers to chain table " +
                            std::to_string(trim.layout.table()) + ", which does not exist");
    }
    TimePoint deadline = state_.env.now() + kAttempt;
    uint64_t piece = piece_bytes(trim.layout);
    uint64_t index = trim.from_bytes / piece;
    uint64_t within = trim.from_bytes % piece;
    if (within != 0) {
        ChainId chain = chain_of_piece(trim.layout, *table, index);
        ChunkId chunk;
        chunk.data = trim.data;
        chunk.index = index++;
        KDFS_CO_TRY(co_await state_.storage->truncate(chain, chunk, within, deadline));
    }
    state_.env.fault_point("mds.trim.after_first_chunk");
    std::vector<Task<Status>> removals;
    // All chains: chunks beyond the old end may exist that nobody reported.
    for (ChainId chain : chains_of_file(trim.layout, *table, kFileBytesMax)) {
        removals.push_back(remove_one(chain, trim.data, index, deadline));
    }
    std::vector<Status> results = co_await when_all(parts_, std::move(removals));
    for (Status& result : results) {
        KDFS_CO_TRY(std::move(result));
    }
    co_return Status();
}

Task<Status> Trimmer::remove_one(ChainId chain,
                                 DataId data,
                                 uint64_t from_index,
                                 TimePoint deadline) {
    auto removed = co_await state_.storage->remove_data(chain, data, from_index, deadline);
    if (!removed.ok()) {
        co_return std::move(removed).error();
    }
    co_return Status();
}

Task<Status> Trimmer::finish(Trim trim) {
    while (true) {
        KvBatch batch;
        Status done = state_.space.finish_trim(trim, batch);
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
