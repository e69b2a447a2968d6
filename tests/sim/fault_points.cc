#include "tests/sim/fault_points.h"

#include "kdfs/base/checksum.h"

#include <iterator>

namespace kdfs::sim {

void FaultPoints::pass(std::string_view name, OwnerId owner) {
    if (!die_) {
        return;
    }
    auto at = counts_.find(name);
    if (at == counts_.end()) {
        Random random(seed_ ^ checksum(name) ^ 0x646965);
        constexpr uint32_t kPpm[] = {0, 0, 500, 5000, 50'000, 300'000};
        Count count;
        count.ppm = kPpm[random.below(std::size(kPpm))];
        at = counts_.emplace(std::string(name), count).first;
    }
    Count& count = at->second;
    ++count.passed;
    if (!may_(owner) || count.ppm == 0 || !random_.chance(count.ppm)) {
        return;
    }
    ++count.died;
    // What it had planned does not happen any more; it is destroyed outside of its own coroutines.
    clock_.hold(owner);
    clock_.add(clock_.now(), 0, [this, owner] {
        if (die_) {
            die_(owner);
        } else {
            clock_.release(owner);
        }
    });
}

}  // namespace kdfs::sim
