#include "client/fuse_uring_message.h"

#include <linux/fuse.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>

namespace kdfs::client {
namespace {

// Arguments are made of 64-bit words; libfuse reads them as structures.
constexpr size_t kArgumentAlignment = 8;

}  // namespace

RingRequestIds request_ids(const RingMemory& memory) {
    fuse_in_header in{};
    std::memcpy(&in, memory.header().in_out, sizeof in);
    return {in.unique, memory.header().entry.commit_id};
}

Result<std::span<std::byte>> assemble_request(const RingMemory& memory) {
    const uring_abi::RequestHeader& header = memory.header();
    fuse_in_header in{};
    std::memcpy(&in, header.in_out, sizeof in);
    size_t payload = header.entry.payload_bytes;
    size_t fixed = sizeof in + payload;
    size_t argument = in.len - fixed;
    if (payload > memory.payload_bytes || in.len < fixed || argument > sizeof header.op_in ||
        argument % kArgumentAlignment != 0) {
        return Error(Errc::kMalformed,
                     "the kernel's FUSE request of operation " + std::to_string(in.opcode) +
                         " has " + std::to_string(in.len) + " bytes, of which " +
                         std::to_string(payload) + " are payload");
    }
    std::byte* begin = memory.payload() - argument - sizeof in;
    std::memcpy(begin, &in, sizeof in);
    std::memcpy(begin + sizeof in, header.op_in, argument);
    return std::span<std::byte>(begin, in.len);
}

Status place_reply(const RingMemory& memory, std::span<const iovec> parts) {
    if (parts.empty() || parts[0].iov_len < sizeof(fuse_out_header)) {
        return Error(Errc::kMalformed, "a FUSE reply lacks its header");
    }
    size_t total = 0;
    for (const iovec& part : parts) {
        if (part.iov_len > memory.payload_bytes + sizeof(fuse_out_header) - total) {
            return Error(
                Errc::kTooBig,
                "a FUSE reply is longer than " + std::to_string(memory.payload_bytes) + " bytes");
        }
        total += part.iov_len;
    }
    uring_abi::RequestHeader& header = memory.header();
    std::byte* out = memory.payload();
    size_t skip = sizeof(fuse_out_header);
    std::memcpy(header.in_out, parts[0].iov_base, skip);
    for (const iovec& part : parts) {
        size_t bytes = part.iov_len - skip;
        if (bytes > 0) {
            std::memcpy(out, static_cast<const std::byte*>(part.iov_base) + skip, bytes);
        }
        out += bytes;
        skip = 0;
    }
    header.entry.payload_bytes = static_cast<uint32_t>(out - memory.payload());
    return {};
}

void place_error(const RingMemory& memory, uint64_t unique, int error_number) {
    fuse_out_header out{};
    out.len = sizeof out;
    out.error = -error_number;
    out.unique = unique;
    uring_abi::RequestHeader& header = memory.header();
    std::memcpy(header.in_out, &out, sizeof out);
    header.entry.payload_bytes = 0;
}

bool init_offers_uring(std::span<const std::byte> request) {
    fuse_in_header header{};
    fuse_init_in init{};
    if (request.size() < sizeof header + sizeof init) {
        return false;
    }
    std::memcpy(&header, request.data(), sizeof header);
    std::memcpy(&init, request.data() + sizeof header, sizeof init);
    return header.opcode == FUSE_INIT && (init.flags & FUSE_INIT_EXT) != 0 &&
           (init.flags2 & uring_abi::kInitFlag2) != 0;
}

bool accept_uring(std::span<std::byte> init_reply) {
    fuse_init_out out{};
    if (init_reply.size() < sizeof out) {
        return false;
    }
    std::memcpy(&out, init_reply.data(), sizeof out);
    // Without it the kernel does not look at the second flags; libfuse then has none of its own.
    if ((out.flags & FUSE_INIT_EXT) == 0) {
        out.flags |= FUSE_INIT_EXT;
        out.flags2 = 0;
    }
    out.flags2 |= uring_abi::kInitFlag2;
    std::memcpy(init_reply.data(), &out, sizeof out);
    return true;
}

Result<uint32_t> count_cpus(std::string_view list) {
    const char* at = list.data();
    const char* end = at + list.size();
    Error bad(Errc::kMalformed, "list of CPUs '" + std::string(list) + "': expected as in 0-3,8");
    uint32_t total = 0;
    while (true) {
        uint32_t first = 0;
        auto [rest, failed] = std::from_chars(at, end, first);
        uint32_t last = first;
        if (failed == std::errc() && rest != end && *rest == '-') {
            auto range = std::from_chars(rest + 1, end, last);
            rest = range.ptr;
            failed = range.ec;
        }
        if (failed != std::errc() || last < first || last - first >= RingShape::kQueuesMax) {
            return bad;
        }
        total += last - first + 1;
        if (total > RingShape::kQueuesMax) {
            return bad;
        }
        if (rest == end || *rest == '\n') {
            return total;
        }
        if (*rest != ',') {
            return bad;
        }
        at = rest + 1;
    }
}

RingShape ring_shape(uint32_t cpus, uint64_t payload_bytes) {
    RingShape shape;
    shape.queues = cpus;
    uint64_t depth = RingShape::kPayloadBytesMax / (uint64_t{cpus} * payload_bytes);
    shape.depth = static_cast<uint32_t>(
        std::clamp<uint64_t>(depth, RingShape::kDepthMin, RingShape::kDepthMax));
    return shape;
}

}  // namespace kdfs::client
