#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"
#include "kdfs/proto/chunk.pb.h"
#include "storage/chunk_store.h"

#include <string>
#include <string_view>
#include <vector>

namespace kdfs::storage {

// Between chunk.proto and the chunk store. What comes from the network is checked here, once.

ChunkKey key_of(uint64_t chain, const pb::ChunkKey& chunk);
void set_key(pb::ChunkKey& out, const ChunkId& chunk);

// Checks fields and bounds against the payload, and the payload against its checksums.
// kInvalidArgument for a request that cannot be, kGarbled for bytes that changed on their way.
Result<ChunkWrite> check_write(const pb::WriteRequest& request, const BufferChain& payload);

// Little-endian, as on the wire.
std::string pack_sums(const std::vector<uint64_t>& sums);
Result<std::vector<uint64_t>> unpack_sums(std::string_view bytes, uint64_t offset, uint64_t length);
// kGarbled unless `data`, which begins at `offset` of a chunk, has these block checksums.
Status check_sums(uint64_t offset, const BufferChain& data, const std::vector<uint64_t>& sums);

}  // namespace kdfs::storage
