#pragma once

#include "kdfs/proto/chunk.pb.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"
#include "storage/chunk_store.h"
#include "storage/cluster_view.h"
#include "storage/replicator.h"
#include "storage/resync.h"

#include <chrono>
#include <cstdint>
#include <map>
#include <vector>

namespace kdfs::storage {

// Looks for damage that nobody has met yet. While the cluster map has a scrub order that runs, each
// target reads every chunk of the chains that it serves, checks it against its block checksums, and
// repairs a damaged one from another serving member. Where the target is a chain's head, it then
// compares its list of chunks with that of each other serving member, and copies what differs to it
// although nothing is under way.
//
// Goes no faster than the order says, chains one after the other. A chain that the target does not
// serve now is left for later; resync looks after it meanwhile. Progress is kept in the target's
// store every kSaveEvery and after each chain, so that a daemon that is started again goes on where
// it was, and knows what it found.
//
// Bounds: one chunk per target in memory, one page of each list.
class Scrubber {
public:
    // What reading a chunk costs at least.
    static constexpr uint64_t kChunkCostMin = 64 * KiB;
    static constexpr uint64_t kDamagedCost = 4 * kPieceBytesMax;
    static constexpr uint64_t kPageEntries = 64;
    static constexpr Duration kSaveEvery = std::chrono::seconds(5);
    static constexpr Duration kRetryDelay = std::chrono::seconds(1);

    // All outlive it.
    Scrubber(Env& env, ClusterView& view, Replicator& replicator, Resync& resync);
    // The stores are open and outlive it.
    void start(const std::vector<ChunkStore*>& stores);
    // To be called after the view has a new map.
    void map_changed();
    // How far the target is, as a heartbeat tells it.
    void describe(pb::TargetReport& report) const;
    void begin_stop();
    Task<void> stop();

private:
    struct Job {
        ChunkStore* store = nullptr;
        pb::ScrubState state;
        TimePoint pace{};  // when the target may read on
        TimePoint saved{};
        Event wake;
    };

    pb::ScrubOrder order() const;
    bool has_work(const Job& job) const;
    // The order that `job` works on is still the one.
    bool current(const Job& job) const;
    Task<void> run(Job* job);
    Task<void> load(Job* job);
    void save(Job* job);
    void begin(Job* job);
    // Where to go on; none if all is done, or if the rest is not served here.
    ChainId next_chain(Job* job);
    void finish(Job* job);
    Task<Status> scrub_chain(Job* job, ChainId chain);
    Task<Status> check_chunks(Job* job, ChainId chain);
    Task<void> check_chunk(Job* job, ChunkKey key);
    Task<Status> compare_members(Job* job, ChainId chain);
    Task<Status> compare_member(Job* job, Resync::Job pair);
    Task<void> keep_pace(Job* job, uint64_t bytes);

    Env& env_;
    ClusterView& view_;
    Replicator& replicator_;
    Resync& resync_;
    std::map<TargetId, Job> jobs_;  // the same from start() on
    bool stopping_ = false;
    TaskScope scope_;
};

}  // namespace kdfs::storage
