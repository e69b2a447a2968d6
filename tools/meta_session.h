#pragma once

#include "kdfs/base/result.h"
#include "kdfs/proto/cluster_map.h"
#include "kdfs/proto/meta.pb.h"
#include "tools/cluster_link.h"

#include <memory>
#include <string>

namespace kdfs::tools {

// A short session of a tool with the metadata server, for looking at the namespace. Holds no
// leases; closed when it goes. `link` outlives it.
class MetaSession {
public:
    static Result<std::unique_ptr<MetaSession>> open(ClusterLink& link, const std::string& mds);
    ~MetaSession();

    const ClusterMap& map() const { return *map_; }
    // Fills in the session. Retries for a bounded time while the server is busy or starting.
    Result<pb::MetaReply> run(pb::MetaRequest request);

private:
    MetaSession(ClusterLink& link, std::string mds) : link_(link), mds_(std::move(mds)) {}

    ClusterLink& link_;
    std::string mds_;
    uint64_t session_ = 0;
    std::shared_ptr<const ClusterMap> map_;
};

}  // namespace kdfs::tools
