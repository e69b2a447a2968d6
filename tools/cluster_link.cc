#include "tools/cluster_link.h"

namespace kdfs::tools {

struct ClusterLink::Impl {};

ClusterLink::ClusterLink(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ClusterLink::~ClusterLink() = default;

Result<std::unique_ptr<ClusterLink>> ClusterLink::open(const std::string&) {
    return Error(Errc::kUnimplemented);
}

Result<RpcReply> ClusterLink::call(const std::string&,
                                   MessageType,
                                   Buffer,
                                   std::chrono::milliseconds) {
    return Error(Errc::kUnimplemented);
}

}  // namespace kdfs::tools
