// The faults that only the full mix has. See nemesis.h.

#include "tests/sim/nemesis.h"

#include <algorithm>
#include <utility>

namespace kdfs::sim {
namespace {

// Longer than any lease of a simulated cluster.
constexpr uint64_t kStopMsMax = 20'000;
constexpr int64_t kWallStepMsMax = 86'400'000;

}  // namespace

void NemesisOptions::draw_more(Random& random) {
    full = true;
    one_way_partitions = random.below(2) == 0;
    stop_processes = random.below(2) == 0;
    wall_steps = random.below(3) == 0;
    constexpr int64_t kDrifts[] = {0, 500, 5000};
    drift_ppm_max = kDrifts[random.below(std::size(kDrifts))];
    if (random.below(2) == 0) {
        network.link_delay_max = std::chrono::milliseconds(random.range(1, 50));
    }
}

std::string NemesisOptions::describe_more() const {
    if (!full) {
        return "";
    }
    auto flag = [](bool on, const char* name) { return on ? std::string(" ") + name : ""; };
    auto slow = std::chrono::duration_cast<std::chrono::milliseconds>(network.link_delay_max);
    return "; full: drift " + std::to_string(drift_ppm_max) + " ppm, links " +
           std::to_string(slow.count()) + " ms" + flag(one_way_partitions, "one-way") +
           flag(stop_processes, "stops") + flag(wall_steps, "wall-steps");
}

void Nemesis::act_more() {
    TimePoint now = cluster_.shared().clock.now();
    std::erase_if(stopped_, [now](const Restart& stopped) {
        if (stopped.when <= now) {
            stopped.node->resume();
        }
        return stopped.when <= now;
    });
    switch (more_random_.below(6)) {
        case 0:
            if (options_.one_way_partitions) {
                partition_one_way();
            }
            return;
        case 1:
            if (options_.stop_processes) {
                stop_process();
            }
            return;
        case 2:
            if (options_.wall_steps) {
                auto nodes = cluster_.all();
                SimNode& node = *nodes[more_random_.below(nodes.size())];
                auto off = static_cast<int64_t>(more_random_.below(2 * kWallStepMsMax));
                node.set_wall_offset(std::chrono::milliseconds(off - kWallStepMsMax));
            }
            return;
        default:
            return;
    }
}

void Nemesis::end_more() {
    for (const Restart& stopped : stopped_) {
        stopped.node->resume();
    }
    stopped_.clear();
}

// What one machine sends reaches some others no more; what they send still arrives.
void Nemesis::partition_one_way() {
    if (heal_partition_at_ != TimePoint::max()) {
        return;
    }
    std::vector<SimNode*> nodes = cluster_.all();
    more_random_.shuffle(nodes);
    size_t others = more_random_.range(1, nodes.size() - 1);
    bool deaf = more_random_.below(2) == 0;
    std::string who;
    for (size_t i = 1; i <= others; ++i) {
        MachineId a = nodes[0]->machine();
        MachineId b = nodes[i]->machine();
        cluster_.shared().network.block_one_way(deaf ? b : a, deaf ? a : b);
        who += " " + nodes[i]->name();
    }
    cluster_.shared().log_book.write(
        "net",
        LogLevel::kInfo,
        "*** " + nodes[0]->name() + (deaf ? " does not hear" : " is not heard by") + who);
    Duration lasts = std::chrono::milliseconds(more_random_.range(10, 15'000));
    heal_partition_at_ = cluster_.shared().clock.now() + lasts;
    last_fault_ = std::max(last_fault_, heal_partition_at_);
}

void Nemesis::stop_process() {
    std::vector<SimNode*> nodes = cluster_.all();
    SimNode& node = *nodes[more_random_.below(nodes.size())];
    bool stopped = std::any_of(stopped_.begin(), stopped_.end(), [&node](const Restart& one) {
        return one.node == &node;
    });
    if (!node.started() || stopped) {
        return;
    }
    node.pause();
    // Half of them shortly, about as long as the leases' margins.
    uint64_t most = more_random_.below(2) == 0 ? 1000 : kStopMsMax;
    Duration lasts = std::chrono::milliseconds(more_random_.range(1, most));
    stopped_.push_back({cluster_.shared().clock.now() + lasts, &node});
    last_fault_ = std::max(last_fault_, stopped_.back().when);
}

}  // namespace kdfs::sim
