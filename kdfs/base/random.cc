#include "kdfs/base/random.h"

#include <bit>

namespace kdfs {
namespace {

uint64_t splitmix64(uint64_t& state) {
    state += 0x9e3779b97f4a7c15ULL;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

}  // namespace

Random::Random(uint64_t seed) : state_{} {
    for (uint64_t& word : state_) {
        word = splitmix64(seed);
    }
}

uint64_t Random::u64() {
    uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return result;
}

uint64_t Random::below(uint64_t bound) {
    KDFS_CHECK(bound != 0);
    // The high half of a 128-bit product; its bias is below 2^-32 for every bound we draw from.
    return static_cast<uint64_t>((static_cast<unsigned __int128>(u64()) * bound) >> 64);
}

Random Random::fork(std::string_view tag) {
    uint64_t mix = 0xcbf29ce484222325ULL;
    for (char c : tag) {
        mix = (mix ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    }
    return Random(u64() ^ mix);
}

}  // namespace kdfs
