#pragma once

#include <cstdint>

// What FUSE over io_uring adds to the kernel's interface, since <linux/fuse.h> of older systems
// lacks it. The layout is ABI; source: include/uapi/linux/fuse.h of Linux 6.14, protocol 7.42.
namespace kdfs::client::uring_abi {

// In `flags2` of the INIT request and reply (bit 41 of all flags).
constexpr uint32_t kInitFlag2 = 1u << (41 - 32);

// Commands of IORING_OP_URING_CMD on the FUSE descriptor.
constexpr uint32_t kRegister = 1;
constexpr uint32_t kCommitAndFetch = 2;

constexpr uint32_t kHeaderBytes = 128;

struct EntryInOut {
    uint64_t flags;
    uint64_t commit_id;
    // Bytes in the payload buffer, of the request or of the reply.
    uint32_t payload_bytes;
    uint32_t padding;
    uint64_t reserved;
};

// What the first of the two buffers of an entry holds.
struct RequestHeader {
    char in_out[kHeaderBytes];  // fuse_in_header; in the reply fuse_out_header
    char op_in[kHeaderBytes];   // the first argument of the operation
    EntryInOut entry;
};

// In the 80 bytes for the command of a long submission entry.
struct Command {
    uint64_t flags;
    uint64_t commit_id;
    uint16_t queue;
    uint8_t padding[6];
};

static_assert(sizeof(EntryInOut) == 32 && sizeof(RequestHeader) == 288 && sizeof(Command) == 24);

}  // namespace kdfs::client::uring_abi
