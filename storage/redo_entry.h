#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"
#include "storage/extent_allocator.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kdfs::storage {

// What a change writes to consecutive blocks. The last block may be short.
struct BlockWrite {
    Extent extent;
    BufferChain data;
};

// A redo entry: the blocks of one change, kept beside its record. With both in one batch a sync of
// the key-value store makes the change durable without the slabs.
std::string redo_key(uint64_t seq);
// The sequence number of the change; kMalformed for any other key.
Result<uint64_t> decode_redo_key(std::string_view key);

// Entry bytes, little-endian:
//   u32 count of runs, runs of { u64 first block, u32 blocks, u32 bytes },
//   the bytes of all runs, then u64 XXH3-64 of all before.
std::string encode_redo(const std::vector<BlockWrite>& writes);
// kCorrupt for bytes that are no entry, whatever they are.
Result<std::vector<BlockWrite>> decode_redo(std::string_view bytes);

}  // namespace kdfs::storage
