#pragma once

#include "kdfs/rt/sync.h"
#include "mds/state.h"

#include <chrono>
#include <map>
#include <memory>
#include <vector>

namespace kdfs::mds {

// Cuts the chunks of files that were made shorter, or set to a size when a writer may have gone
// beyond it. The intent is in the journal with the new size; it is carried out before anybody gets
// an answer about the file, and again after a restart.
// While it is under way the inode is busy: operations on it wait.
// Bound: one attempt takes kAttempt at most; attempts go on until one succeeds or the server stops.
class Trimmer {
public:
    static constexpr Duration kAttempt = std::chrono::seconds(30);
    static constexpr uint64_t kResumedMax = 4096;  // loaded per page at a start

    // `state` outlives this.
    explicit Trimmer(State& state)
        : state_(state), scope_(state.env.scheduler()), parts_(state.env.scheduler()) {}
    // Takes up what an earlier life began. Returns at once; the inodes are busy from then on.
    Task<Status> start();
    Task<void> stop();

    // Marks the inode busy and starts; to be called in the turn of the commit.
    void begin(const Trim& trim);
    bool busy(InodeId ino) const { return busy_.contains(ino); }
    // Until the inode is not busy.
    Task<void> wait(InodeId ino);
    // The same until `deadline`; then kTimeout.
    Task<Status> wait_until(InodeId ino, TimePoint deadline);
    size_t running() const { return busy_.size(); }

private:
    struct Busy {
        size_t trims = 0;
        Event done;
    };
    Task<void> run(Trim trim);
    Task<Status> attempt(Trim trim);
    Task<Status> finish(Trim trim);
    Task<Status> remove_one(ChainId chain, DataId data, uint64_t from_index, TimePoint deadline);

    State& state_;
    std::map<InodeId, std::shared_ptr<Busy>> busy_;
    TaskScope scope_;
    // What the tasks of scope_ wait for: closed after it.
    TaskScope parts_;
};

}  // namespace kdfs::mds
