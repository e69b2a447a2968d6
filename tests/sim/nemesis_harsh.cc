// The faults that `--harsh` adds to the full mix. See nemesis.h.

#include "tests/sim/nemesis.h"

#include <algorithm>

namespace kdfs::sim {
namespace {

// Longer than a node's lease, so that its place is given away while clients still reach it.
constexpr uint64_t kCutMsMax = 12'000;
constexpr uint64_t kLinksMax = 3;
constexpr uint64_t kDownMsMax = 5000;
// Longer than the others, once they are back, wait for it.
constexpr uint64_t kAwayMsMin = 15'000;
constexpr uint64_t kAwayMsMax = 25'000;

}  // namespace

void NemesisOptions::draw_harsh(Random& random) {
    harsh = random.below(3) == 0 ? Harsh::kPower : Harsh::kLinks;
    if (harsh == Harsh::kPower) {
        NemesisOptions calm;
        calm.full = full;
        calm.harsh = harsh;
        calm.drift_ppm_max = drift_ppm_max;
        calm.pause_max = std::chrono::seconds(2);
        *this = calm;
    }
}

void Nemesis::act_harsh() {
    if (options_.harsh == NemesisOptions::Harsh::kPower) {
        cut_all_storage_power();
    } else if (harsh_random_.below(2) == 0) {
        cut_links();
    }
}

// Half of them between the metadata server and a storage node: who is taken for dead lives on.
void Nemesis::cut_links() {
    if (heal_partition_at_ != TimePoint::max()) {
        return;
    }
    std::vector<SimNode*> nodes = cluster_.all();
    auto& storage = cluster_.storage();
    uint64_t links = harsh_random_.range(1, kLinksMax);
    std::string which;
    for (uint64_t i = 0; i < links; ++i) {
        bool from_mds = harsh_random_.below(2) == 0;
        SimNode& a = from_mds ? cluster_.mds() : *nodes[harsh_random_.below(nodes.size())];
        SimNode& b = from_mds ? *storage[harsh_random_.below(storage.size())]
                              : *nodes[harsh_random_.below(nodes.size())];
        if (&a == &b) {
            continue;
        }
        cluster_.shared().network.set_blocked(a.machine(), b.machine(), true);
        which += " " + a.name() + "-" + b.name();
    }
    cluster_.shared().log_book.write("net", LogLevel::kInfo, "*** links cut:" + which);
    Duration lasts = std::chrono::milliseconds(harsh_random_.range(10, kCutMsMax));
    heal_partition_at_ = cluster_.shared().clock.now() + lasts;
    last_fault_ = std::max(last_fault_, heal_partition_at_);
}

// Every copy loses what was not synced; all were whole before. Half the time one stays away, and
// the others serve without it.
void Nemesis::cut_all_storage_power() {
    if (!quiet()) {
        return;
    }
    cluster_.shared().log_book.write("world", LogLevel::kInfo, "*** all storage loses power");
    cluster_.cut_all_storage_power();
    auto& storage = cluster_.storage();
    size_t away = harsh_random_.below(2 * storage.size());
    for (size_t i = 0; i < storage.size(); ++i) {
        uint64_t down = i == away ? harsh_random_.range(kAwayMsMin, kAwayMsMax)
                                  : harsh_random_.range(1, kDownMsMax);
        later(std::chrono::milliseconds(down), *storage[i]);
        restarts_.back().missed_by_nobody = i == away;
    }
}

}  // namespace kdfs::sim
