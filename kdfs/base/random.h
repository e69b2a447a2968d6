#pragma once

#include "kdfs/base/check.h"

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace kdfs {

// xoshiro256** seeded through splitmix64. Ours, because the standard distributions and shuffle
// differ between library versions, and a seed must replay everywhere.
class Random {
public:
    explicit Random(uint64_t seed);

    uint64_t u64();
    // Uniform in [0, bound). `bound` must not be 0.
    uint64_t below(uint64_t bound);
    // Uniform in [first, last].
    uint64_t range(uint64_t first, uint64_t last) {
        KDFS_CHECK(first <= last);
        return last - first == UINT64_MAX ? u64() : first + below(last - first + 1);
    }
    // True with probability `parts_per_million` / 1000000.
    bool chance(uint32_t parts_per_million) { return below(1000000) < parts_per_million; }
    // A generator of its own for one component, so that one more draw there shifts nothing here.
    Random fork(std::string_view tag);
    template <class T>
    void shuffle(std::vector<T>& items) {
        for (size_t i = items.size(); i > 1; --i) {
            std::swap(items[i - 1], items[below(i)]);
        }
    }

private:
    uint64_t state_[4];
};

}  // namespace kdfs
