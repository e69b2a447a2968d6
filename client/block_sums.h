#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace kdfs::client {

// Block checksums as messages carry them: XXH3-64, little-endian, one for each block of kBlockBytes
// of the piece that `data`, which starts at `offset` of the piece, touches. The first and the last
// block may be short. Pure.
std::string block_sums(uint64_t offset, const BufferChain& data);

// kGarbled naming the first block of `data` (which starts at a block boundary) that does not match.
Status verify_block_sums(const BufferChain& data, std::string_view sums);

}  // namespace kdfs::client
