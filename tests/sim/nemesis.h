#pragma once

#include "kdfs/base/random.h"
#include "tests/sim/cluster.h"

#include <cstdint>
#include <string>
#include <vector>

namespace kdfs::sim {

// Which faults a run has, drawn from its seed: each kind is on in some runs only.
struct NemesisOptions {
    NetworkFaults network;
    bool kill_mds = false;
    bool kill_storage = false;
    bool power_storage = false;
    bool kill_clients = false;
    bool partitions = false;
    bool clocks = false;
    // Between two acts.
    Duration pause_max = std::chrono::seconds(5);
    // Only in the full mix.
    bool full = false;
    bool one_way_partitions = false;
    bool stop_processes = false;
    bool wall_steps = false;
    bool slow_disks = false;
    // Of one storage node's disks at a time.
    bool bit_rot = false;
    bool unreadable = false;
    bool misdirected = false;
    // Processes die at named points; see fault_points.h. Not drawn, so that what a seed of the full
    // mix does without them stays the same.
    bool fault_points = false;
    // Bits of frames flip on the way; the same.
    bool flips = false;
    // What is rare and tells most; the same.
    enum class Harsh {
        kNo,
        kLinks,  // links between two machines fail while both reach the others
        kPower,  // every storage node loses power at once, again and again; nothing else happens
    };
    Harsh harsh = Harsh::kNo;
    bool damages() const { return bit_rot || unreadable || misdirected; }
    // Monotonic clocks run up to this much too fast or too slow. docs/protocol.md (F1, L4) leaves
    // a margin of a sixteenth; real clocks keep to 500.
    int64_t drift_ppm_max = 0;

    static NemesisOptions draw(Random& random);
    // Switches on some of what only the full mix has.
    void draw_more(Random& random);
    void draw_harsh(Random& random);
    std::string describe() const;
    std::string describe_more() const;
};

// Breaks things within a budget: at any time one good copy of everything is left, so that any loss
// is a bug. A process may be killed any time; the power of a storage node goes only when every
// chain has all its members and nothing was broken for a while. The same holds for damage of bytes:
// one node has it, while no other fault happens, and what is not repaired when others may fail
// again is mended by the world: as long as nobody reads it, nobody can know.
class Nemesis {
public:
    // After the last fault, everybody has noticed by then and the map says who really serves.
    static constexpr Duration kQuietBeforePowerCut = std::chrono::seconds(10);

    Nemesis(Cluster& cluster, Random random, NemesisOptions options);
    // One act, maybe none.
    void act();
    Duration next_pause();
    // Ends every fault.
    void heal();

private:
    void break_storage();
    void cut_storage_power();
    void partition();
    // nemesis_full.cc: what only the full mix has.
    void begin_more();
    void act_more();
    void end_more();
    void partition_one_way();
    void stop_process();
    void slow_disk();
    void die_at_point(OwnerId owner);
    bool may_die(OwnerId owner) const;
    // nemesis_harsh.cc
    void act_harsh();
    void cut_links();
    void cut_all_storage_power();
    // A bout of damage: waits for quiet, damages one node, goes on; true while it lasts.
    bool damage_bout();
    void damage_one();
    void damage_files(SimNode& node);
    void end_damage();
    bool quiet();
    void later(Duration when, SimNode& node);
    void restart_due();

    struct Restart {
        TimePoint when;
        SimNode* node;
        // By then the others serve everything that they have a copy of.
        bool missed_by_nobody = false;
    };
    Cluster& cluster_;
    Random random_;
    NemesisOptions options_;
    std::vector<Restart> restarts_;
    // When stopped processes go on.
    std::vector<Restart> stopped_;
    std::vector<Restart> slowed_;
    enum class Bout { kNone, kWaiting, kDamaged };
    Bout bout_ = Bout::kNone;
    TimePoint bout_until_;
    SimNode* damaged_ = nullptr;
    // For what only the full mix has: the rest of a seed stays as it is.
    Random more_random_;
    // The same for `harsh`.
    Random harsh_random_;
    TimePoint last_fault_;
    TimePoint heal_partition_at_ = TimePoint::max();
};

}  // namespace kdfs::sim
