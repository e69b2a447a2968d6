#include "kdfs/rt/frame_seal.h"

#include <bit>
#include <cstring>
#include <string>

namespace kdfs {
namespace {

struct SipState {
    uint64_t a, b, c, d;

    void round() {
        a += b;
        b = std::rotl(b, 13) ^ a;
        a = std::rotl(a, 32);
        c += d;
        d = std::rotl(d, 16) ^ c;
        a += d;
        d = std::rotl(d, 21) ^ a;
        c += b;
        b = std::rotl(b, 17) ^ c;
        c = std::rotl(c, 32);
    }
    void absorb(uint64_t word) {
        d ^= word;
        round();
        round();
        a ^= word;
    }
};

uint64_t word_at(const std::byte* bytes) {
    uint64_t word = 0;
    std::memcpy(&word, bytes, sizeof word);
    return word;
}

uint64_t sequence_mac(const SealKey& key, const FrameBytes& bytes, uint64_t sequence) {
    // The frame's number takes the place of the seal: 64 bytes in all.
    FrameBytes covered = bytes;
    set_seal(covered, sequence);
    return siphash(key, covered);
}

}  // namespace

uint64_t siphash(const SealKey& key, std::span<const std::byte> bytes) {
    uint64_t k0 = word_at(key.data());
    uint64_t k1 = word_at(key.data() + 8);
    SipState s{k0 ^ 0x736f6d6570736575ULL,
               k1 ^ 0x646f72616e646f6dULL,
               k0 ^ 0x6c7967656e657261ULL,
               k1 ^ 0x7465646279746573ULL};
    size_t whole = bytes.size() / 8 * 8;
    for (size_t i = 0; i < whole; i += 8) {
        s.absorb(word_at(bytes.data() + i));
    }
    uint64_t last = static_cast<uint64_t>(bytes.size()) << 56;
    for (size_t i = whole; i < bytes.size(); ++i) {
        last |= static_cast<uint64_t>(bytes[i]) << (8 * (i - whole));
    }
    s.absorb(last);
    s.c ^= 0xff;
    for (int i = 0; i < 4; ++i) {
        s.round();
    }
    return s.a ^ s.b ^ s.c ^ s.d;
}

void FrameSeal::seal(FrameBytes& bytes) {
    if (keys_) {
        set_seal(bytes, sequence_mac(keys_->send, bytes, sent_++));
    }
}

Status FrameSeal::check(const FrameBytes& bytes) {
    if (!keys_) {
        return check_plain_seal(bytes);
    }
    if (get_seal(bytes) != sequence_mac(keys_->receive, bytes, received_++)) {
        return Error(Errc::kMalformed, "frame: the header's authentication code is wrong");
    }
    return {};
}

}  // namespace kdfs
