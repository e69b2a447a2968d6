#pragma once

#include "kdfs/rpc/rpc.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/sim/sim_node.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::fuzz {

// Simulated machines without faults, the same for every input.
class World {
public:
    static constexpr uint64_t kEventsAtOneTimeMax = 1'000'000;

    World() : shared_(1) {}
    sim::SimShared& shared() { return shared_; }

    sim::SimNode& add(const std::string& name, uint64_t number, sim::SimNode::Factory factory) {
        PeerIdentity identity;
        identity.name = name;
        identity.role = number == 0 ? PeerRole::kTool : PeerRole::kStorage;
        identity.node = NodeId(number);
        nodes_.push_back(
            std::make_unique<sim::SimNode>(shared_, std::move(identity), std::move(factory)));
        return *nodes_.back();
    }
    // False if `done` does not come about within `time`.
    bool run_until(const std::function<bool()>& done, Duration time) {
        TimePoint end = shared_.clock.now() + time;
        while (!done()) {
            if (!shared_.clock.run_one(end)) {
                return false;
            }
            require(shared_.clock.events_at_this_time() < kEventsAtOneTimeMax,
                    "nothing loops without waiting");
        }
        return true;
    }
    void run_for(Duration time) {
        run_until([] { return false; }, time);
    }
    // Runs `task` on a machine; false if it takes longer than `time`.
    bool run_on(sim::SimNode& node, Task<void> task, Duration time) {
        auto done = std::make_shared<bool>(false);
        node.spawn(then_set(std::move(task), done));
        return run_until([done] { return *done; }, time);
    }

private:
    static Task<void> then_set(Task<void> task, std::shared_ptr<bool> done) {
        co_await std::move(task);
        *done = true;
    }

    sim::SimShared shared_;
    std::vector<std::unique_ptr<sim::SimNode>> nodes_;
};

// A machine that listens, or calls others, as a target wants it.
class Peer final : public sim::Process {
public:
    // `listen` may be empty.
    Peer(Env& env, std::string listen, RpcHandler handler)
        : env_(env),
          listen_(std::move(listen)),
          handler_(std::move(handler)),
          server_(env, [this](RpcRequest request) { return handler_(std::move(request)); }) {}
    Task<Status> start() override {
        if (listen_.empty()) {
            co_return Status();
        }
        co_return co_await server_.listen(listen_);
    }
    Task<void> stop() override { co_return; }

    // Sends a request and keeps the answer; null while there is none. Requests to one address go
    // over one connection, whose requests this end answers too.
    std::shared_ptr<Result<RpcReply>> last() const { return last_; }
    Task<void> call(std::string address, RpcCall call) {
        last_.reset();
        auto& channel = channels_[address];
        if (!channel) {
            channel = std::make_unique<RpcChannel>(
                env_,
                address,
                ChannelKind::kControl,
                [this](RpcRequest request) { return handler_(std::move(request)); });
        }
        auto reply = co_await channel->call(std::move(call));
        last_ = std::make_shared<Result<RpcReply>>(std::move(reply));
    }
    Env& env() { return env_; }
    RpcServer& server() { return server_; }

private:
    Env& env_;
    std::string listen_;
    RpcHandler handler_;
    RpcServer server_;
    std::map<std::string, std::unique_ptr<RpcChannel>> channels_;
    std::shared_ptr<Result<RpcReply>> last_;
};

}  // namespace kdfs::fuzz
