#pragma once

#include "kdfs/kv/mem_kv.h"
#include "storage/server.h"
#include "tests/sim/processes.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_node.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::sim {

// What the storage daemon's main() builds, on a simulated node.
class StorageProcess final : public Process {
public:
    struct Options {
        uint64_t node = 0;
        uint64_t targets = 1;
        uint64_t target_bytes = 0;
        // Of the disk, when it is new.
        uint64_t disk_bytes = 0;
        uint64_t slab_bytes = 16 * MiB;
    };

    StorageProcess(SimNode& node, Env& env, Options options) {
        std::vector<storage::TargetOptions> targets;
        for (uint64_t i = 1; i <= options.targets; ++i) {
            std::string name = "target" + std::to_string(i);
            disks_.push_back(std::make_unique<SimDisk>(env, node.disk(name, options.disk_bytes)));
            stores_.push_back(std::make_unique<MemKv>(env, node.kv(name)));
            storage::TargetOptions target;
            target.disk = disks_.back().get();
            target.kv = stores_.back().get();
            target.store.target = target_id(options.node, i);
            target.store.slab_bytes = options.slab_bytes;
            target.store.capacity_bytes = options.target_bytes;
            targets.push_back(target);
        }
        storage::ServerOptions server;
        server.node = NodeId(options.node);
        server.name = node.name();
        server.boot = node.machine_starts();
        server.manager = kMdsAddress;
        server.listen = node.name() + ":7001";
        server.cluster_id = node.notes()["cluster"];
        server.hooks.on_cluster = [&node](const std::string& id) { node.notes()["cluster"] = id; };
        server_ = std::make_unique<storage::Server>(env, std::move(targets), std::move(server));
    }
    static TargetId target_id(uint64_t node, uint64_t number) {
        return TargetId(node * 100 + number);
    }
    Task<Status> start() override { return server_->start(); }
    Task<void> stop() override { return server_->stop(); }
    storage::Server& server() { return *server_; }

private:
    std::vector<std::unique_ptr<SimDisk>> disks_;
    std::vector<std::unique_ptr<MemKv>> stores_;
    std::unique_ptr<storage::Server> server_;
};

}  // namespace kdfs::sim
