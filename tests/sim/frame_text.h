#pragma once

#include "kdfs/rt/frame.h"

#include <string>

namespace kdfs::sim {

// A frame as one line for people.
std::string frame_text(const Frame& frame);

}  // namespace kdfs::sim
