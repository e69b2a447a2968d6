#pragma once

#include "kdfs/base/types.h"
#include "kdfs/proto/placement.h"
#include "tests/sim/verdict.h"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

namespace kdfs::sim {

// Which faults a seed draws from. What a seed does under `basic` stays as it is, so that recorded
// seeds keep their meaning; new kinds of faults go into `full`.
enum class Mix { kBasic, kFull };

struct RunOptions {
    uint64_t seed = 1;
    Mix mix = Mix::kBasic;
    // Of every target. With few, maps are small and a seed takes a third of the time.
    uint64_t chains_per_target = kChainsPerTarget;
    // Processes also die at the fault points of the product. With the full mix only.
    bool fault_points = false;
    // Bits of frames flip on the way. With the full mix only.
    bool flips = false;
    // Rare faults and narrow shapes. With the full mix only.
    bool harsh = false;
    bool verbose = false;
    // Of virtual time under faults; drawn from the seed if absent.
    std::optional<Duration> chaos;
};

struct RunResult {
    Verdict verdict;
    uint64_t digest = 0;
    uint64_t events = 0;
    uint64_t operations = 0;
    Duration virtual_time{};
    std::string shape;
    // The last log lines, if it failed.
    std::string log;
    std::string faults;
    // How often each fault point was passed under faults, and let its process die.
    std::map<std::string, std::pair<uint64_t, uint64_t>> fault_points;
};

// One whole cluster from one seed: faults and a checked workload; then everything heals, and within
// named bounds of virtual time every operation ends, every chain is whole again, the tree and all
// data are what the model says, and the stores fit together.
RunResult run_simulation(const RunOptions& options);

}  // namespace kdfs::sim
