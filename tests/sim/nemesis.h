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
    Duration pause_max = std::chrono::seconds(5);

    static NemesisOptions draw(Random& random);
    std::string describe() const;
};

// Breaks things within a budget: at any time one good copy of everything is left, so that any loss
// is a bug. A process may be killed any time; the power of a storage node goes only when every
// chain has all its members and nothing was broken for a while.
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
    void later(Duration when, SimNode& node);
    void restart_due();

    struct Restart {
        TimePoint when;
        SimNode* node;
    };
    Cluster& cluster_;
    Random random_;
    NemesisOptions options_;
    std::vector<Restart> restarts_;
    TimePoint last_fault_;
    TimePoint heal_partition_at_ = TimePoint::max();
};

}  // namespace kdfs::sim
