// Built with the compiler flags of its instruction set (see kdfs/CMakeLists.txt).
#include "kdfs/base/checksum_kernels.h"

#include <xxhash.h>

namespace kdfs::detail {

uint64_t xxh3_avx2(const void* data, size_t size) { return XXH3_64bits(data, size); }

}  // namespace kdfs::detail
