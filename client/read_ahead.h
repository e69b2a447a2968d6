#pragma once

#include "kdfs/base/types.h"

#include <cstdint>

namespace kdfs::client {

// Decides for one open file what to fetch before it is asked for. Pure. A read that starts where
// one of the last ended, give or take the kernel's own reordering, is sequential; the window
// doubles with each and starts over after a jump. Whole pieces are fetched, each range once.
class ReadAhead {
public:
    // Requests of one reader may overtake each other by this much.
    static constexpr uint64_t kSlackBytes = 512 * KiB;

    struct Plan {
        bool sequential = false;
        // Pieces [first, beyond) to be fetched now; empty if equal.
        uint64_t first = 0;
        uint64_t beyond = 0;
    };

    ReadAhead(uint64_t piece_bytes, uint64_t window_bytes_max)
        : piece_bytes_(piece_bytes), window_max_(window_bytes_max) {}

    // The reader asks for [offset, offset + length) of a file of `size` bytes.
    Plan on_read(uint64_t offset, uint64_t length, uint64_t size);

private:
    uint64_t piece_bytes_;
    uint64_t window_max_;
    uint64_t expected_ = 0;  // where a sequential reader would go on
    uint64_t window_ = 0;
    uint64_t planned_ = 0;  // pieces below this were planned already
};

}  // namespace kdfs::client
