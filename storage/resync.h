#pragma once

#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"
#include "storage/chunk_store.h"
#include "storage/cluster_view.h"
#include "storage/peer_pool.h"
#include "storage/replicator.h"

#include <cstdint>
#include <optional>
#include <set>
#include <tuple>
#include <vector>

namespace kdfs::storage {

// One chunk in a list of a chain's chunks.
struct ResyncEntry {
    ChunkId chunk;
    ChunkVersion version;
    uint64_t length = 0;
    uint64_t digest = 0;
    bool pending = false;
};

// Part of a list in key order, from one common place on. With `more`, the list goes on behind it.
struct ResyncPage {
    std::vector<ResyncEntry> entries;
    bool more = false;
};

struct ResyncPlan {
    // Chunks to make equal: they differ, are missing on one side, or are being changed.
    std::vector<ChunkId> differ;
    // Where the comparison ended; nothing if both lists did.
    std::optional<ChunkId> next_after;
};

// Compares two pages that begin at the same place. Pure. Never compares beyond what both show.
ResyncPlan plan_resync(const ResyncPage& ours, const ResyncPage& theirs);

// Brings the members that come back up to date: for each chain in which a local target is the last
// that serves and the next is syncing, compares the two chunk lists, sends what differs, has the
// other sync its disk, and reports to the manager. Starts again when the chain's version changes.
//
// Why comparing once is enough: the successor takes every write since it is in the map, on a base
// that was compared or is replaced. What changes between reading the two lists shows as a
// difference or was sent after both; what is under way shows as pending. Each chunk is sent under
// its lock here, so no write to it is in between.
//
// Bounds: kJobsMax chains compared at once, kWindow chunks of each in flight, one page of each list
// in memory. Reports are not counted: the manager collects them.
class Resync {
public:
    static constexpr uint64_t kJobsMax = 3;
    static constexpr size_t kWindow = 4;
    static constexpr int kPushAttemptsMax = 3;
    static constexpr uint32_t kPageEntries = 512;
    static constexpr Duration kCallTimeout = std::chrono::seconds(10);
    static constexpr Duration kRetryDelay = std::chrono::milliseconds(100);
    // When a chunk is damaged and nobody has another: all others were sent.
    static constexpr Duration kDamagedDelay = std::chrono::seconds(10);

    // Two members of a chain under one of its versions; `from` is local.
    struct Job {
        ChainId chain;
        uint64_t version = 0;
        TargetId from;
        TargetId to;
        auto operator<=>(const Job&) const = default;
    };

    // All outlive it.
    Resync(Env& env,
           ClusterView& view,
           Replicator& replicator,
           PeerPool& peers,
           RpcChannel& manager);

    // To be called after the view has a new map.
    void map_changed();
    size_t jobs() const { return jobs_.size(); }
    void begin_stop();
    Task<void> stop();

    // One page of the chunks that may differ between the two; see plan_resync().
    Task<Result<ResyncPlan>> compare_page(Job job, std::optional<ChunkId> after);

private:
    bool current(const Job& job) const;
    Task<void> run(Job job);
    // Makes the other member's chunks equal.
    Task<Status> compare(Job job);
    Task<Status> push_all(Job job, std::vector<ChunkId> chunks);
    Task<Status> push(Job job, ChunkId chunk);
    Task<Result<ResyncPage>> our_page(Job job, std::optional<ChunkId> after);
    Task<Result<ResyncPage>> their_page(Job job, std::optional<ChunkId> after);
    Task<Status> report(Job job);
    // One line for all that came into sync since nothing was left to do.
    void tell();

    Env& env_;
    ClusterView& view_;
    Replicator& replicator_;
    PeerPool& peers_;
    RpcChannel& manager_;
    std::set<Job> jobs_;
    uint64_t chains_done_ = 0;
    uint64_t chunks_sent_ = 0;
    Semaphore slots_{kJobsMax};
    bool stopping_ = false;
    TaskScope io_scope_;
    TaskScope scope_;
};

}  // namespace kdfs::storage
