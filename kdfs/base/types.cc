#include "kdfs/base/types.h"

#include <cinttypes>
#include <cstdio>

namespace kdfs {

std::string to_string(const ChunkId& id) {
    char text[48];
    std::snprintf(text, sizeof text, "%" PRIx64 ".%" PRIu64, id.data.value, id.index);
    return text;
}

}  // namespace kdfs
