#include "tests/sim/nemesis.h"

#include <algorithm>
#include <utility>

namespace kdfs::sim {

NemesisOptions NemesisOptions::draw(Random& random) {
    NemesisOptions out;
    auto some = [&random](uint32_t most) {
        return random.below(2) == 0 ? 0 : static_cast<uint32_t>(random.below(most));
    };
    out.network.stall_ppm = some(3000);
    out.network.break_ppm = some(3000);
    out.network.hang_ppm = some(500);
    out.network.duplicate_ppm = some(30'000);
    out.network.connect_fail_ppm = some(100'000);
    if (random.below(3) == 0) {
        out.network.delay_max = std::chrono::milliseconds(random.range(1, 20));
    }
    out.kill_mds = random.below(2) == 0;
    out.kill_storage = random.below(2) == 0;
    out.power_storage = random.below(2) == 0;
    out.kill_clients = random.below(3) == 0;
    out.partitions = random.below(2) == 0;
    out.clocks = random.below(3) == 0;
    out.pause_max = std::chrono::milliseconds(random.range(500, 8000));
    return out;
}

std::string NemesisOptions::describe() const {
    auto flag = [](bool on, const char* name) { return on ? std::string(" ") + name : ""; };
    return "stall " + std::to_string(network.stall_ppm) + " break " +
           std::to_string(network.break_ppm) + " hang " + std::to_string(network.hang_ppm) +
           " duplicate " + std::to_string(network.duplicate_ppm) + " refuse " +
           std::to_string(network.connect_fail_ppm) + " ppm;" + flag(kill_mds, "kill-mds") +
           flag(kill_storage, "kill-storage") + flag(power_storage, "power-storage") +
           flag(kill_clients, "kill-clients") + flag(partitions, "partitions") +
           flag(clocks, "clocks") + describe_more();
}

Nemesis::Nemesis(Cluster& cluster, Random random, NemesisOptions options)
    : cluster_(cluster),
      random_(random),
      options_(options),
      more_random_(Random(random).fork("more")),
      harsh_random_(Random(random).fork("harsh")),
      last_fault_(cluster.shared().clock.now()) {
    cluster_.shared().network.faults() = options_.network;
    cluster_.shared().faults.set_enabled(true);
    if (options_.full) {
        begin_more();
    }
}

Duration Nemesis::next_pause() {
    auto most = static_cast<uint64_t>(options_.pause_max.count());
    return Duration(static_cast<int64_t>(random_.range(1'000'000, most)));
}

void Nemesis::later(Duration when, SimNode& node) {
    restarts_.push_back({.when = cluster_.shared().clock.now() + when, .node = &node});
    last_fault_ = cluster_.shared().clock.now() + when;
}

void Nemesis::restart_due() {
    TimePoint now = cluster_.shared().clock.now();
    std::erase_if(restarts_, [&](const Restart& restart) {
        if (restart.when > now) {
            return false;
        }
        if (restart.missed_by_nobody) {
            cluster_.check_served();
        }
        cluster_.boot(*restart.node);
        return true;
    });
    if (heal_partition_at_ <= now) {
        cluster_.shared().log_book.write("net", LogLevel::kInfo, "*** healed");
        cluster_.shared().network.heal();
        heal_partition_at_ = TimePoint::max();
        last_fault_ = now;
    }
}

void Nemesis::act() {
    restart_due();
    if (options_.full) {
        act_more();
    }
    if (options_.harsh != NemesisOptions::Harsh::kNo && bout_ == Bout::kNone) {
        act_harsh();
    }
    if (bout_ != Bout::kNone) {
        return;
    }
    auto down_for = [this](uint64_t most_ms) {
        return std::chrono::milliseconds(random_.range(1, most_ms));
    };
    switch (random_.below(8)) {
        case 0:
            if (options_.kill_mds && cluster_.mds().running()) {
                cluster_.kill(cluster_.mds());
                later(down_for(5000), cluster_.mds());
            }
            return;
        case 1:
        case 2:
            if (options_.kill_storage) {
                break_storage();
            }
            return;
        case 3:
            if (options_.power_storage) {
                cut_storage_power();
            }
            return;
        case 4:
            if (options_.kill_clients) {
                auto& clients = cluster_.clients();
                SimNode& client = *clients[random_.below(clients.size())];
                if (client.started()) {
                    random_.below(2) == 0 ? cluster_.kill(client) : cluster_.cut_power(client);
                    later(down_for(15000), client);
                }
            }
            return;
        case 5:
            if (options_.partitions) {
                partition();
            }
            return;
        case 6:
            if (options_.clocks) {
                auto nodes = cluster_.all();
                SimNode& node = *nodes[random_.below(nodes.size())];
                auto off = static_cast<int64_t>(random_.below(20'000)) - 10'000;
                node.set_wall_offset(std::chrono::milliseconds(off));
            }
            return;
        default:
            return;
    }
}

void Nemesis::break_storage() {
    auto& nodes = cluster_.storage();
    SimNode& node = *nodes[random_.below(nodes.size())];
    if (node.running()) {
        cluster_.kill(node);
        later(std::chrono::milliseconds(random_.range(1, 12000)), node);
    }
}

bool Nemesis::quiet() {
    return cluster_.shared().clock.now() - last_fault_ > kQuietBeforePowerCut &&
           cluster_.healthy() && heal_partition_at_ == TimePoint::max() && stopped_.empty();
}

void Nemesis::cut_storage_power() {
    if (!quiet()) {
        return;
    }
    auto& nodes = cluster_.storage();
    SimNode& node = *nodes[random_.below(nodes.size())];
    cluster_.cut_power(node);
    later(std::chrono::milliseconds(random_.range(1, 12000)), node);
}

void Nemesis::partition() {
    if (heal_partition_at_ != TimePoint::max()) {
        return;
    }
    std::vector<SimNode*> nodes = cluster_.all();
    random_.shuffle(nodes);
    size_t cut = random_.below(3) == 0 ? random_.range(1, nodes.size() - 1) : 1;
    std::string who;
    for (size_t a = 0; a < cut; ++a) {
        who += " " + nodes[a]->name();
        for (size_t b = cut; b < nodes.size(); ++b) {
            cluster_.shared().network.set_blocked(nodes[a]->machine(), nodes[b]->machine(), true);
        }
    }
    cluster_.shared().log_book.write("net", LogLevel::kInfo, "*** cut off:" + who);
    Duration lasts = std::chrono::milliseconds(random_.range(10, 15'000));
    heal_partition_at_ = cluster_.shared().clock.now() + lasts;
    last_fault_ = heal_partition_at_;
}

void Nemesis::heal() {
    SimShared& shared = cluster_.shared();
    shared.log_book.write("net", LogLevel::kInfo, "*** all faults end");
    end_more();
    shared.network.faults() = NetworkFaults();
    shared.network.heal();
    shared.faults.set_enabled(false);
    restarts_.clear();
    cluster_.boot_all();
}

}  // namespace kdfs::sim
