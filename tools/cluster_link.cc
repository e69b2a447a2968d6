#include "tools/cluster_link.h"

#include "kdfs/base/log.h"
#include "kdfs/rt/cluster_key.h"
#include "kdfs/rt/real_env.h"

#include <unistd.h>

#include <map>

namespace kdfs::tools {

namespace {

// A tool says what it has to say as its error; the transport's lines would only repeat it.
class SilentLog : public LogSink {
public:
    bool enabled(LogLevel) const override { return false; }
    void write(LogLevel, std::string_view) override {}
};

Task<Status> stop_channels(std::map<std::string, std::unique_ptr<RpcChannel>>& channels) {
    for (auto& [address, channel] : channels) {
        co_await channel->stop();
    }
    co_return Status();
}

// Takes the time inside the loop, whose clock stood still since the last call.
Task<Result<RpcReply>> call_channel(Env& env,
                                    RpcChannel& channel,
                                    MessageType type,
                                    Buffer body,
                                    Duration patience) {
    RpcCall call(type, std::move(body), env.now() + patience);
    Result<RpcReply> reply = co_await channel.call(std::move(call));
    co_return reply;
}

}  // namespace

struct ClusterLink::Impl {
    SilentLog log;
    std::unique_ptr<RealEnv> env;
    std::map<std::string, std::unique_ptr<RpcChannel>> channels;
};

ClusterLink::ClusterLink(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ClusterLink::~ClusterLink() {
    if (!impl_->channels.empty()) {
        Status stopped = run_task<Status>(impl_->env->reactor(), stop_channels(impl_->channels));
        KDFS_CHECK(stopped.ok());
    }
}

Result<std::unique_ptr<ClusterLink>> ClusterLink::open(const std::string& key_file) {
    TcpTransportOptions options;
    KDFS_TRY_ASSIGN(options.key, load_cluster_key(key_file));
    options.self.role = PeerRole::kTool;
    options.self.name = "kdfs tool, process " + std::to_string(getpid());
    auto impl = std::make_unique<Impl>();
    KDFS_TRY_ASSIGN(impl->env, RealEnv::create(impl->log, options));
    return std::unique_ptr<ClusterLink>(new ClusterLink(std::move(impl)));
}

Result<RpcReply> ClusterLink::call(const std::string& address,
                                   MessageType type,
                                   Buffer body,
                                   std::chrono::milliseconds patience) {
    if (address.empty()) {
        return Error(Errc::kUnreachable,
                     "the metadata server is not running; start it: kdfs up --dir STATE");
    }
    std::unique_ptr<RpcChannel>& channel = impl_->channels[address];
    if (!channel) {
        channel = std::make_unique<RpcChannel>(*impl_->env, address, ChannelKind::kControl);
    }
    Result<RpcReply> reply = run_task<Result<RpcReply>>(
        impl_->env->reactor(),
        call_channel(*impl_->env, *channel, type, std::move(body), patience));
    if (!reply.ok()) {
        return Error(reply.error().code, address + ": " + reply.error().detail);
    }
    return reply;
}

}  // namespace kdfs::tools
