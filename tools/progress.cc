#include "tools/progress.h"

#include <algorithm>

namespace kdfs::tools {

namespace {

constexpr auto kQuietFor = std::chrono::milliseconds(500);
constexpr auto kInterval = std::chrono::milliseconds(100);
constexpr uint64_t kBarColumns = 30;

}  // namespace

Progress::Progress(Console& console, std::string what)
    : console_(console),
      what_(std::move(what)),
      begin_(std::chrono::steady_clock::now()),
      next_(begin_ + kQuietFor) {}

Progress::~Progress() {
    if (shown_) {
        console_.err << "\r\033[K" << std::flush;
    }
}

void Progress::show(uint64_t done, uint64_t whole, const std::string& unit) {
    auto now = std::chrono::steady_clock::now();
    if (!console_.err_is_terminal || now < next_) {
        return;
    }
    next_ = now + kInterval;
    shown_ = true;
    console_.err << "\r\033[K" << what_ << " ";
    if (whole != 0) {
        auto filled = static_cast<size_t>(std::min(done, whole) * kBarColumns / whole);
        console_.err << "[" << std::string(filled, '#') << std::string(kBarColumns - filled, '.')
                     << "] " << done << " of " << whole << " " << unit;
    } else {
        console_.err << done << " " << unit;
    }
    console_.err << std::flush;
}

}  // namespace kdfs::tools
