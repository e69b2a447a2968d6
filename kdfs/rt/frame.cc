#include "kdfs/rt/frame.h"

#include "kdfs/base/checksum.h"
#include "kdfs/base/types.h"

#include <cstring>
#include <string>

namespace kdfs {
namespace {

template <class T>
void put(FrameBytes& bytes, size_t at, T value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
}

template <class T>
T get(const FrameBytes& bytes, size_t at) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

}  // namespace

FrameBytes encode_header(Frame& frame) {
    FrameHeader& h = frame.header;
    KDFS_CHECK(frame.body.size() <= kBodyBytesMax && frame.payload.size() <= kPayloadBytesMax);
    h.body_bytes = static_cast<uint32_t>(frame.body.size());
    h.payload_bytes = static_cast<uint32_t>(frame.payload.size());
    h.body_checksum = checksum(frame.body.span());
    FrameBytes bytes{};
    put(bytes, 0, FrameHeader::kMagic);
    put(bytes, 4, FrameHeader::kVersion);
    put(bytes, 5, h.flags);
    put(bytes, 6, h.type);
    put(bytes, 8, h.request_id);
    put(bytes, 16, h.trace_id);
    put(bytes, 24, h.job_tag);
    put(bytes, 32, h.body_bytes);
    put(bytes, 36, h.payload_bytes);
    put(bytes, 40, h.body_checksum);
    put(bytes, 48, h.deadline_ms);
    set_seal(bytes, checksum(sealed_part(bytes)));
    return bytes;
}

std::span<const std::byte> sealed_part(const FrameBytes& bytes) {
    return std::span(bytes).first(FrameHeader::kSealedBytes);
}

void set_seal(FrameBytes& bytes, uint64_t seal) { put(bytes, FrameHeader::kSealedBytes, seal); }

uint64_t get_seal(const FrameBytes& bytes) {
    return get<uint64_t>(bytes, FrameHeader::kSealedBytes);
}

Result<FrameHeader> decode_header(const FrameBytes& bytes) {
    if (get<uint32_t>(bytes, 0) != FrameHeader::kMagic) {
        return Error(Errc::kMalformed, "frame: not a kdfs frame (wrong magic)");
    }
    auto version = get<uint8_t>(bytes, 4);
    if (version != FrameHeader::kVersion) {
        return Error(Errc::kWrongVersion,
                     "frame: peer speaks protocol version " + std::to_string(version) +
                         ", this program " + std::to_string(FrameHeader::kVersion) +
                         ": install the same release on both");
    }
    FrameHeader h;
    h.flags = get<uint8_t>(bytes, 5);
    h.type = get<uint16_t>(bytes, 6);
    h.request_id = get<uint64_t>(bytes, 8);
    h.trace_id = get<uint64_t>(bytes, 16);
    h.job_tag = get<uint64_t>(bytes, 24);
    h.body_bytes = get<uint32_t>(bytes, 32);
    h.payload_bytes = get<uint32_t>(bytes, 36);
    h.body_checksum = get<uint64_t>(bytes, 40);
    h.deadline_ms = get<uint32_t>(bytes, 48);
    constexpr uint8_t kKnownFlags = FrameHeader::kFlagResponse | FrameHeader::kFlagError;
    if ((h.flags & ~kKnownFlags) != 0 || get<uint32_t>(bytes, 52) != 0) {
        return Error(Errc::kMalformed, "frame: unknown flags or reserved bytes set");
    }
    if (h.body_bytes > kBodyBytesMax || h.payload_bytes > kPayloadBytesMax) {
        return Error(Errc::kMalformed,
                     "frame: length beyond the bound (body " + std::to_string(h.body_bytes) +
                         ", payload " + std::to_string(h.payload_bytes) + ")");
    }
    return h;
}

Status check_plain_seal(const FrameBytes& bytes) {
    if (get_seal(bytes) != checksum(sealed_part(bytes))) {
        return Error(Errc::kMalformed, "frame: header checksum is wrong");
    }
    return {};
}

Status check_body(const FrameHeader& header, const Buffer& body) {
    if (header.body_checksum != checksum(body.span())) {
        return Error(Errc::kMalformed, "frame: body checksum is wrong");
    }
    return {};
}

}  // namespace kdfs
