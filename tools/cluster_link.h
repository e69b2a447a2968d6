#pragma once

#include "kdfs/base/result.h"
#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/wire.h"
#include "kdfs/rpc/rpc.h"

#include <chrono>
#include <memory>
#include <string>

namespace kdfs::tools {

// Talks to the daemons of one cluster as a program does that has nothing else to do: each call
// blocks until the answer is there or the time is over. One thread; the loop runs inside the calls.
// Connections stay open between calls. Errors name the daemon's address.
class ClusterLink {
public:
    // Reads the key; connects to nobody yet.
    static Result<std::unique_ptr<ClusterLink>> open(const std::string& key_file);
    ~ClusterLink();

    Result<RpcReply> call(const std::string& address,
                          MessageType type,
                          Buffer body,
                          std::chrono::milliseconds patience);
    template <class Reply, class Request>
    Result<Reply> ask(const std::string& address,
                      MessageType type,
                      const Request& request,
                      std::chrono::milliseconds patience = std::chrono::seconds(5)) {
        KDFS_TRY_ASSIGN(RpcReply reply, call(address, type, encode(request), patience));
        return decode<Reply>(reply.body);
    }

private:
    struct Impl;
    explicit ClusterLink(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace kdfs::tools
