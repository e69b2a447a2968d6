#pragma once

#include "client/fuse_uring_abi.h"
#include "kdfs/base/result.h"

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace kdfs::client {

// Requests and replies of FUSE over io_uring, in the form in which /dev/fuse has them. Pure: only
// the memory that is handed in is read and written, and sizes that lie in it are not believed.

// The memory of one ring entry. A page with the kernel's header at its begin lies directly before
// the payload; its end has room for the head of a request.
struct RingMemory {
    static constexpr size_t kHeaderPageBytes = 4096;

    std::byte* page = nullptr;
    size_t payload_bytes = 0;

    std::byte* payload() const { return page + kHeaderPageBytes; }
    uring_abi::RequestHeader& header() const {
        return *reinterpret_cast<uring_abi::RequestHeader*>(page);
    }
};

struct RingRequestIds {
    uint64_t unique = 0;     // names the request in its reply
    uint64_t commit_id = 0;  // names it in the command that hands over the reply
};
RingRequestIds request_ids(const RingMemory& memory);

// Puts the request's head in front of its payload, which stays where it is: together they are what
// read() from /dev/fuse gives. kMalformed if the sizes contradict each other.
Result<std::span<std::byte>> assemble_request(const RingMemory& memory);

// Puts a reply, as it would be written to /dev/fuse, into the entry. kMalformed without a whole
// header, kTooBig if it does not fit; the entry is then unchanged.
Status place_reply(const RingMemory& memory, std::span<const iovec> parts);
// A reply that is an error; `error_number` is positive.
void place_error(const RingMemory& memory, uint64_t unique, int error_number);

// True if `request` is INIT and the kernel offers the ring in it.
bool init_offers_uring(std::span<const std::byte> request);
// Accepts the offer in the body of the reply to INIT. False if the body is too short.
bool accept_uring(std::span<std::byte> init_reply);

// The number of CPUs in a list such as "0-3,8" (/sys/devices/system/cpu/possible).
Result<uint32_t> count_cpus(std::string_view list);

// The kernel wants a queue per possible CPU. Entries per queue are the requests that can be under
// way from one CPU; each has room for the largest request, of which only what is used takes memory.
struct RingShape {
    static constexpr uint32_t kQueuesMax = 4096;
    static constexpr uint32_t kDepthMax = 16;
    static constexpr uint32_t kDepthMin = 4;
    // For all payloads, unless kDepthMin needs more.
    static constexpr uint64_t kPayloadBytesMax = 256ull << 20;

    uint32_t queues = 1;
    uint32_t depth = 1;

    uint32_t entries() const { return queues * depth; }
};
RingShape ring_shape(uint32_t cpus, uint64_t payload_bytes);

}  // namespace kdfs::client
