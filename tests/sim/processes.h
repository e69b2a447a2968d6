#pragma once

#include "client/file_client.h"
#include "kdfs/kv/mem_kv.h"
#include "mds/server.h"
#include "tests/sim/sim_node.h"

#include <memory>
#include <string>
#include <vector>

namespace kdfs::sim {

// What each program's main() builds, on a simulated node.

inline constexpr const char* kMdsAddress = "mds:7000";

class MdsProcess final : public Process {
public:
    MdsProcess(SimNode& node, Env& env, mds::Options options)
        : store_(env, node.kv("meta")), server_(env, store_, std::move(options)) {}
    Task<Status> start() override { return server_.start(); }
    Task<void> stop() override {
        Status status = co_await server_.stop();
        (void)status;
    }
    mds::Server& server() { return server_; }
    KvStore& store() { return store_; }

private:
    MemKv store_;
    mds::Server server_;
};

class ClientProcess final : public Process {
public:
    ClientProcess(Env& env, client::ClientOptions options)
        : env_(env), files_(env, std::move(options), nullptr) {}
    Task<Status> start() override {
        co_return co_await files_.start(env_.now() + std::chrono::seconds(60));
    }
    Task<void> stop() override { stopped_ = co_await files_.stop(); }
    client::FileClient& files() { return files_; }
    const Status& stopped() const { return stopped_; }

private:
    Env& env_;
    client::FileClient files_;
    Status stopped_;
};

}  // namespace kdfs::sim
