#pragma once

#include "kdfs/base/random.h"
#include "tests/sim/sim_clock.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace kdfs::sim {

// Every name that the product gives Env::fault_point(). `kdfs-sim --all-points` fails if one of
// these is never passed in a sweep, or if one is passed that is not here.
inline constexpr const char* kFaultPoints[] = {
    "client.fsync.before_chains",   "client.recall.before_answer",  "client.write.before_done",
    "mds.commit.before_reply",      "mds.gc.between_chains",        "mds.map.before_publish",
    "mds.recall.before_take",       "mds.session.after_fence",      "mds.session.before_drop",
    "mds.trim.after_first_chunk",   "mds.trim.before_finish",       "resync.before_push",
    "resync.before_report",         "storage.remove.after_forward", "storage.remove.after_page",
    "storage.repair.before_commit", "storage.write.after_forward",  "storage.write.after_stage",
    "storage.write.before_sync",    "store.open.after_replay",      "store.open.before_settle",
    "store.open.in_settle",         "store.sync.before_release",
};

// Which fault points let their process die, and how often. As with FaultPlan each is drawn once per
// seed. While it is off nothing is counted or drawn.
class FaultPoints {
public:
    struct Count {
        uint32_t ppm = 0;
        uint64_t passed = 0;
        uint64_t died = 0;
    };
    // `die` gets the owner whose process is to die; it runs when the event that passed the point is
    // over. `may` says whether it may die now; the point is counted anyhow.
    using Die = std::function<void(OwnerId)>;
    using May = std::function<bool(OwnerId)>;

    FaultPoints(SimClock& clock, uint64_t seed)
        : clock_(clock), seed_(seed), random_(seed ^ 0x706f696e74) {}
    void set_on(Die die, May may) {
        die_ = std::move(die);
        may_ = std::move(may);
    }
    void set_off() { die_ = nullptr; }
    void pass(std::string_view name, OwnerId owner);
    const std::map<std::string, Count, std::less<>>& counts() const { return counts_; }

private:
    SimClock& clock_;
    uint64_t seed_;
    Random random_;
    Die die_;
    May may_;
    std::map<std::string, Count, std::less<>> counts_;
};

}  // namespace kdfs::sim
