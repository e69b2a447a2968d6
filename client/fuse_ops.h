#pragma once

#include <fuse_lowlevel.h>

namespace kdfs::client {

// The callbacks of libfuse's low-level interface. They take arguments apart and hand them to the
// FuseBridge that is the session's user data; nothing is decided here.
const fuse_lowlevel_ops& fuse_operations();

}  // namespace kdfs::client
