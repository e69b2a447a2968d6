#pragma once

#include "kdfs/base/result.h"
#include "kdfs/rt/frame.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace kdfs {

// A 128-bit key of SipHash-2-4.
using SealKey = std::array<std::byte, 16>;

// SipHash-2-4 with a 64-bit result: a keyed hash that cannot be forged without the key, cheap
// enough for every frame.
uint64_t siphash(const SealKey& key, std::span<const std::byte> bytes);

// Seals the headers one end sends and checks those it receives. Without keys (inside TLS) the seal
// is the checksum of the header. With keys it is SipHash-2-4 over the header's first 56 bytes and
// the frame's number in its direction, so that nobody on the way can change, repeat, drop or
// reorder headers. Bodies hang on them by an XXH3-64 in the header, payloads by the block checksums
// in the body where the message has them: these find damage, but are no cryptographic hash. Who can
// change bytes on the way can forge a clear body or payload; only encryption keeps that off.
class FrameSeal {
public:
    struct Keys {
        SealKey send{};
        SealKey receive{};
    };
    FrameSeal() = default;
    explicit FrameSeal(const Keys& keys) : keys_(keys) {}

    // Replaces the seal of the next frame to be sent.
    void seal(FrameBytes& bytes);
    // kMalformed unless the seal is that of the next frame to be received.
    Status check(const FrameBytes& bytes);

private:
    std::optional<Keys> keys_;
    uint64_t sent_ = 0;
    uint64_t received_ = 0;
};

}  // namespace kdfs
