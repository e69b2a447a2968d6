#include "client/read_ahead.h"

#include <algorithm>

namespace kdfs::client {

ReadAhead::Plan ReadAhead::on_read(uint64_t offset, uint64_t length, uint64_t size) {
    Plan plan;
    bool follows =
        expected_ != 0 && offset + kSlackBytes >= expected_ && offset <= expected_ + kSlackBytes;
    uint64_t end = offset + length;
    if (!follows) {
        window_ = 0;
        planned_ = 0;
        expected_ = end;
        return plan;
    }
    expected_ = std::max(expected_, end);
    window_ = std::min(window_max_, window_ == 0 ? piece_bytes_ : window_ * 2);
    plan.sequential = window_ > 0;
    uint64_t until = std::min(size, expected_ + window_);
    plan.first = std::max(planned_, offset / piece_bytes_);
    plan.beyond = std::max(plan.first, (until + piece_bytes_ - 1) / piece_bytes_);
    planned_ = std::max(planned_, plan.beyond);
    return plan;
}

}  // namespace kdfs::client
