#pragma once

#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/env.h"

#include <map>
#include <memory>
#include <string>

namespace kdfs::storage {

// One data channel per address, made when first used. Bound: the addresses the cluster map has
// shown since the daemon started.
class PeerPool {
public:
    explicit PeerPool(Env& env) : env_(env) {}

    // Lives as long as the pool.
    RpcChannel& to(const std::string& address) {
        std::unique_ptr<RpcChannel>& channel = channels_[address];
        if (!channel) {
            channel = std::make_unique<RpcChannel>(env_, address, ChannelKind::kData);
        }
        return *channel;
    }
    // Ends calls under way with an error.
    Task<void> stop() {
        for (auto& [address, channel] : channels_) {
            co_await channel->stop();
        }
    }

private:
    Env& env_;
    std::map<std::string, std::unique_ptr<RpcChannel>> channels_;
};

}  // namespace kdfs::storage
