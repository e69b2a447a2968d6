#pragma once

#include <cstddef>
#include <cstdint>

namespace kdfs::detail {

// XXH3-64 compiled for one instruction set each; all give the same value. checksum() picks one.
uint64_t xxh3_baseline(const void* data, size_t size);
uint64_t xxh3_avx2(const void* data, size_t size);
uint64_t xxh3_avx512(const void* data, size_t size);

}  // namespace kdfs::detail
