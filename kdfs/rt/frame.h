#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kdfs {

// The fixed header of every frame, 64 bytes, little-endian:
//   0  u32 magic "KDFS"    4  u8 version          5  u8 flags         6  u16 type
//   8  u64 request id     16  u64 trace id       24  u64 job tag
//  32  u32 body bytes     36  u32 payload bytes  40  u64 XXH3-64 of the body
//  48  u32 time left to the deadline, milliseconds; 0 means none
//  52  u32 reserved, zero 56  u64 seal: XXH3-64 of bytes 0 to 55, or the connection's MAC over them
// Behind it lie the body (a Protocol Buffers message) and the raw payload.
struct FrameHeader {
    static constexpr uint32_t kMagic = 0x5346444b;
    static constexpr uint8_t kVersion = 1;
    static constexpr size_t kBytes = 64;
    static constexpr size_t kSealedBytes = 56;
    static constexpr uint8_t kFlagResponse = 1;
    static constexpr uint8_t kFlagError = 2;

    uint8_t flags = 0;
    uint16_t type = 0;
    uint64_t request_id = 0;
    uint64_t trace_id = 0;
    uint64_t job_tag = 0;
    uint32_t body_bytes = 0;
    uint32_t payload_bytes = 0;
    uint64_t body_checksum = 0;
    uint32_t deadline_ms = 0;

    bool is_response() const { return (flags & kFlagResponse) != 0; }
    bool is_error() const { return (flags & kFlagError) != 0; }
};

using FrameBytes = std::array<std::byte, FrameHeader::kBytes>;

// One frame in memory. The header's lengths and body checksum are set by encode_header().
struct Frame {
    FrameHeader header;
    Buffer body;
    BufferChain payload;
};

// Fills lengths and body checksum into frame.header and gives the 64 bytes, sealed by checksum.
FrameBytes encode_header(Frame& frame);
// The bytes a MAC covers and the place where it stands in a header.
std::span<const std::byte> sealed_part(const FrameBytes& bytes);
void set_seal(FrameBytes& bytes, uint64_t seal);
uint64_t get_seal(const FrameBytes& bytes);

// The header in `bytes`, checked: magic, version, reserved bytes and flags, and both lengths
// against their bounds (kBodyBytesMax, kPayloadBytesMax). Does not look at the seal. kMalformed or
// kWrongVersion otherwise.
Result<FrameHeader> decode_header(const FrameBytes& bytes);
// kMalformed unless the seal is the checksum.
Status check_plain_seal(const FrameBytes& bytes);
// kMalformed unless the body has the header's checksum.
Status check_body(const FrameHeader& header, const Buffer& body);

}  // namespace kdfs
