#pragma once

#include "kdfs/base/types.h"
#include "kdfs/proto/cluster_map.h"
#include "kdfs/rt/task.h"

#include <memory>

namespace kdfs::client {

// What the data path needs to know of the session.
class MapSource {
public:
    virtual ~MapSource() = default;
    // The newest map known. Never null once the session was opened.
    virtual std::shared_ptr<const ClusterMap> map() const = 0;
    // Asks for a map newer than `epoch`; returns when there is one (true) or at `until` (false).
    virtual Task<bool> wait_newer(Epoch epoch, TimePoint until) = 0;
    // The session writes are made under; changes only if the old one was fenced.
    virtual SessionId session() const = 0;
};

}  // namespace kdfs::client
