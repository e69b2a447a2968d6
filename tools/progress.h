#pragma once

#include "tools/command.h"

#include <chrono>
#include <cstdint>
#include <string>

namespace kdfs::tools {

// A bar on stderr while something takes long; nothing where stderr is no terminal, or within the
// first moment, so that quick work stays quiet. Cleared when it goes.
class Progress {
public:
    Progress(Console& console, std::string what);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress();

    // `whole` 0: the size of the work is not known yet.
    void show(uint64_t done, uint64_t whole, const std::string& unit);

private:
    Console& console_;
    std::string what_;
    std::chrono::steady_clock::time_point begin_;
    std::chrono::steady_clock::time_point next_;
    bool shown_ = false;
};

}  // namespace kdfs::tools
