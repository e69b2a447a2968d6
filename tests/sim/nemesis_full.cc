// The faults that only the full mix has. See nemesis.h.

#include "tests/sim/nemesis.h"

#include <algorithm>
#include <utility>

namespace kdfs::sim {
namespace {

// Longer than any lease of a simulated cluster.
constexpr uint64_t kStopMsMax = 20'000;
constexpr int64_t kWallStepMsMax = 86'400'000;
// Of one operation of a disk.
constexpr uint64_t kSlowMsMax = 1000;
// Of acts, one begins a bout of damage, which waits so long at most for quiet.
constexpr uint64_t kBoutEvery = 8;
constexpr Duration kBoutWaitMax = std::chrono::seconds(40);

void set_slowness(SimNode& node, Duration slow_max) {
    for (auto& [name, disk] : node.disks()) {
        disk->trouble().slow_max = slow_max;
    }
}

}  // namespace

void NemesisOptions::draw_more(Random& random) {
    full = true;
    one_way_partitions = random.below(2) == 0;
    stop_processes = random.below(2) == 0;
    wall_steps = random.below(3) == 0;
    constexpr int64_t kDrifts[] = {0, 500, 5000};
    drift_ppm_max = kDrifts[random.below(std::size(kDrifts))];
    slow_disks = random.below(2) == 0;
    bit_rot = random.below(3) == 0;
    unreadable = random.below(3) == 0;
    misdirected = random.below(3) == 0;
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
           flag(stop_processes, "stops") + flag(wall_steps, "wall-steps") +
           flag(slow_disks, "slow-disks") + flag(bit_rot, "rot") + flag(unreadable, "unreadable") +
           flag(misdirected, "misdirected") + flag(fault_points, "points") + flag(flips, "flips") +
           flag(harsh == Harsh::kLinks, "harsh-links") +
           flag(harsh == Harsh::kPower, "harsh-power");
}

void Nemesis::begin_more() {
    FaultPoints& points = cluster_.shared().fault_points;
    points.set_on([this](OwnerId owner) { die_at_point(owner); },
                  [this](OwnerId owner) { return may_die(owner); });
}

bool Nemesis::may_die(OwnerId owner) const {
    bool damaged = bout_ == Bout::kDamaged && damaged_->is(owner);
    return options_.fault_points && (bout_ == Bout::kNone || damaged);
}

void Nemesis::die_at_point(OwnerId owner) {
    for (SimNode* node : cluster_.all()) {
        if (node->is(owner)) {
            cluster_.shared().log_book.write(node->name(), LogLevel::kInfo, "*** at a fault point");
            cluster_.kill(*node);
            later(std::chrono::milliseconds(more_random_.range(1, 8000)), *node);
        }
    }
}

void Nemesis::act_more() {
    TimePoint now = cluster_.shared().clock.now();
    std::erase_if(stopped_, [now](const Restart& stopped) {
        if (stopped.when <= now) {
            stopped.node->resume();
        }
        return stopped.when <= now;
    });
    std::erase_if(slowed_, [now](const Restart& slowed) {
        if (slowed.when <= now) {
            set_slowness(*slowed.node, {});
        }
        return slowed.when <= now;
    });
    if (damage_bout()) {
        return;
    }
    switch (more_random_.below(7)) {
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
        case 3:
            if (options_.slow_disks) {
                slow_disk();
            }
            return;
        case 4:
            // No fault: if copies differ, that is one.
            cluster_.order_scrub();
            return;
        default:
            return;
    }
}

void Nemesis::slow_disk() {
    auto& nodes = cluster_.storage();
    SimNode& node = *nodes[more_random_.below(nodes.size())];
    Duration slow = std::chrono::milliseconds(more_random_.range(1, kSlowMsMax));
    set_slowness(node, slow);
    Duration lasts = std::chrono::milliseconds(more_random_.range(1, 15'000));
    slowed_.push_back({cluster_.shared().clock.now() + lasts, &node});
    last_fault_ = std::max(last_fault_, slowed_.back().when);
    auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(slow).count();
    cluster_.shared().log_book.write(node.name(),
                                     LogLevel::kInfo,
                                     "*** its disks are slow: " + std::to_string(ms) + " ms");
}

bool Nemesis::damage_bout() {
    TimePoint now = cluster_.shared().clock.now();
    switch (bout_) {
        case Bout::kNone:
            // Without another replica there is nothing to read around to.
            if (!options_.damages() || cluster_.options().replicas < 2 ||
                more_random_.below(kBoutEvery) != 0) {
                return false;
            }
            bout_ = Bout::kWaiting;
            bout_until_ = now + kBoutWaitMax;
            cluster_.shared().network.faults() = NetworkFaults();
            return true;
        case Bout::kWaiting:
            if (quiet() && restarts_.empty() && slowed_.empty()) {
                damage_one();
            } else if (now > bout_until_) {
                end_damage();
            }
            return true;
        case Bout::kDamaged:
            if (now >= bout_until_) {
                end_damage();
            } else if (damaged_->running() && options_.kill_storage && more_random_.below(8) == 0) {
                // The others have everything.
                more_random_.below(2) == 0 ? cluster_.kill(*damaged_)
                                           : cluster_.cut_power(*damaged_);
                later(std::chrono::milliseconds(more_random_.range(1, 3000)), *damaged_);
            }
            return true;
    }
    return false;
}

void Nemesis::damage_one() {
    auto& nodes = cluster_.storage();
    damaged_ = nodes[more_random_.below(nodes.size())].get();
    bout_ = Bout::kDamaged;
    Duration lasts = std::chrono::milliseconds(more_random_.range(500, 10'000));
    bout_until_ = cluster_.shared().clock.now() + lasts;
    cluster_.shared().log_book.write(damaged_->name(), LogLevel::kInfo, "*** its disks fail");
    damage_files(*damaged_);
}

void Nemesis::damage_files(SimNode& node) {
    for (auto& [disk_name, disk] : node.disks()) {
        if (options_.misdirected) {
            disk->trouble().misdirect_ppm = 200'000;
        }
        for (auto& [name, file] : disk->files()) {
            std::vector<uint64_t> pages = file->pages();
            if (!name.starts_with("slab.") || pages.empty()) {
                continue;
            }
            uint64_t spots = more_random_.range(1, pages.size());
            for (uint64_t i = 0; options_.bit_rot && i < spots; ++i) {
                uint64_t page = pages[more_random_.below(pages.size())];
                file->flip_byte(page + more_random_.below(FileMedium::kPageBytes));
            }
            if (options_.unreadable) {
                uint64_t page = pages[more_random_.below(pages.size())];
                file->make_unreadable(page, more_random_.range(1, 4 * FileMedium::kPageBytes));
            }
        }
    }
}

void Nemesis::end_damage() {
    bout_ = Bout::kNone;
    cluster_.shared().network.faults() = options_.network;
    if (damaged_ == nullptr) {
        return;
    }
    size_t left = 0;
    for (auto& [disk_name, disk] : damaged_->disks()) {
        disk->trouble().misdirect_ppm = 0;
        for (auto& [name, file] : disk->files()) {
            left += file->damaged_blocks();
            file->mend();
        }
    }
    cluster_.shared().log_book.write(
        damaged_->name(),
        LogLevel::kInfo,
        "*** its disks are well again; blocks mended: " + std::to_string(left));
    damaged_ = nullptr;
    last_fault_ = std::max(last_fault_, cluster_.shared().clock.now());
}

void Nemesis::end_more() {
    end_damage();
    cluster_.shared().fault_points.set_off();
    for (const Restart& slowed : slowed_) {
        set_slowness(*slowed.node, {});
    }
    slowed_.clear();
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
    stopped_.push_back({.when = cluster_.shared().clock.now() + lasts, .node = &node});
    last_fault_ = std::max(last_fault_, stopped_.back().when);
}

}  // namespace kdfs::sim
