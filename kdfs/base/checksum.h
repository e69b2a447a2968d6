#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace kdfs {

// XXH3-64 with the widest vectors this processor has, chosen at run time.
uint64_t checksum(std::span<const std::byte> bytes);
uint64_t checksum(std::string_view text);

// The checksum of each kBlockBytes block of `bytes`, which starts at a block boundary; the last
// block may be short and is hashed as it is.
std::vector<uint64_t> block_checksums(std::span<const std::byte> bytes);

}  // namespace kdfs
