#pragma once

#include "kdfs/rt/sync.h"
#include "mds/state.h"

#include <chrono>
#include <map>
#include <vector>

namespace kdfs::mds {

// Removes the chunks of files that are gone, in the background. The queue is in the store; an entry
// leaves it when every chain confirmed, so what a crash leaves is taken up by the next life. The
// entries are kept in memory too, because looking for them in the store means stepping over all
// that were finished lately. If nobody may have written beyond the size a file was queued with,
// only the chains that the size tells of are visited. Else all are, and once more when no session
// is left that may still have a write to it on its way, or after kLingerLeases session leases.
// Whoever removes many files goes first: collection starts kGather after the first is there, or
// when kGatherMax are, and goes kBatch at a time.
// Bounds: kBatch files at once, kQueueMax in memory (the others wait in the store, also for those
// that linger); a failed one is tried again kRetryDelay later.
class Gc {
public:
    static constexpr size_t kBatch = 64;
    static constexpr size_t kQueueMax = 16384;
    static constexpr uint64_t kPage = 1024;  // loaded from the store at once
    static constexpr Duration kGather = std::chrono::seconds(1);
    static constexpr size_t kGatherMax = 4096;
    static constexpr Duration kRetryDelay = std::chrono::seconds(1);
    static constexpr Duration kAttempt = std::chrono::seconds(10);
    // A client whose writes are still under way so long after has been shut out.
    static constexpr int kLingerLeases = Sessions::kCourtesyLeases + 1;

    // `state` outlives this.
    explicit Gc(State& state)
        : state_(state), scope_(state.env.scheduler()), parts_(state.env.scheduler()) {}
    void start();
    Task<void> stop();
    // What the stored queue grew by.
    void add(std::vector<DeadData> died);

private:
    Task<void> run();
    // Once through the queue. False if something has to be tried again.
    Task<bool> pass();
    // Takes in what is only in the store, as far as there is room.
    Task<Status> refill();
    Task<Result<std::vector<DeadData>>> stored(DataId after);
    std::vector<DeadData> batch_after(DataId after) const;
    Task<Status> collect(DeadData dead);
    Task<Status> remove_everywhere(DeadData dead);
    Task<Status> finish(std::vector<DataId> collected);

    // A file whose chunks are gone, but may come again.
    struct Lingering {
        TimePoint until;
        SessionId newest;  // session there was
    };

    State& state_;
    std::map<DataId, DeadData> queue_;
    // Whether the store has entries above read_to_ that queue_ may lack; and, since the reading
    // began, also below.
    bool unread_ = true;
    bool unread_again_ = false;
    DataId read_to_;
    std::map<DataId, Lingering> lingering_;
    Event work_;
    Event hurry_;
    TaskScope scope_;
    // What the tasks of scope_ wait for: closed after it.
    TaskScope parts_;
};

}  // namespace kdfs::mds
