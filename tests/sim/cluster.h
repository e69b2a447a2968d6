#pragma once

#include "kdfs/proto/cluster_map.h"
#include "kdfs/proto/placement.h"
#include "mds/fsck.h"
#include "tests/sim/sim_node.h"
#include "tests/sim/verdict.h"
#include "tests/sim/workload.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace kdfs::sim {

class MdsProcess;
class StorageProcess;
class ClientProcess;

// The shape of one run, drawn from its seed.
struct ClusterOptions {
    uint64_t storage_nodes = 3;
    uint64_t targets_per_node = 1;
    uint64_t chains_per_target = kChainsPerTarget;
    uint32_t replicas = 2;
    uint64_t clients = 2;
    uint64_t target_bytes = 256 * MiB;
    uint64_t slab_bytes = 16 * MiB;
    // Of each target's disk; less than target_bytes: it fills up.
    uint64_t disk_bytes = 256 * MiB;
    uint64_t chunk_bytes = 64 * KiB;
    uint32_t width = 4;

    static ClusterOptions draw(Random& random);
    // Other shapes, and in some runs small disks: writes are refused for want of space.
    void draw_more(Random& random);
    // Shapes in which a broken rule shows soon: one copy, blocks that are used again at once.
    void draw_harsh(Random& random);
    bool tight() const { return disk_bytes < target_bytes; }
    std::string describe() const;
};

// A whole cluster on virtual time: one metadata server, storage daemons and clients, built by the
// constructors that the programs use.
class Cluster {
public:
    static constexpr Duration kNodeLease = std::chrono::seconds(4);
    static constexpr Duration kSessionLease = std::chrono::seconds(8);
    // A process that ended with an error or died is started again this much later.
    static constexpr Duration kRestartDelay = std::chrono::seconds(1);

    Cluster(SimShared& shared, Verdict& verdict, ClusterOptions options, Workload& load);
    ~Cluster();

    // Runs for `time`, or until the run has failed.
    void run_for(Duration time);
    // Runs until `done`; false if that takes longer than `bound` or the run has failed.
    bool run_until(const std::function<bool()>& done, Duration bound);

    void boot(SimNode& node);
    void kill(SimNode& node);
    void cut_power(SimNode& node);
    // Of all storage nodes at once.
    void cut_all_storage_power();
    void boot_all();
    // Every disk is larger from now on, for who ran out of space.
    void enlarge_disks();
    // Starts clients' workers where a client has come up, and processes again that ended.
    void tend();

    SimNode& mds() { return *mds_; }
    std::vector<std::unique_ptr<SimNode>>& storage() { return storage_; }
    std::vector<std::unique_ptr<SimNode>>& clients() { return clients_; }
    std::vector<SimNode*> all();
    // The map of the running manager, else null.
    std::shared_ptr<const ClusterMap> map();
    // Every chain has all its replicas serving by daemons that run.
    bool healthy();
    // The first of what healthy() does not find; empty if nothing.
    std::string what_is_missing();
    // The client's library; null if it is not up.
    client::FileClient* files(size_t client);
    const ClusterOptions& options() const { return options_; }
    SimShared& shared() { return shared_; }
    Verdict& verdict() { return verdict_; }
    bool session_gone(SessionId session);
    // What the newest map that a running process has says of losses, for all chains together.
    uint64_t losses();
    // Every chain that has a copy on a storage node that runs is served.
    void check_served();
    // Has the storage daemons read and compare everything.
    void order_scrub();

    // Once all clients have stopped: what the stores hold fits together. See checks.cc.
    void check_stores();
    // Then the metadata server soon knows of no session and no lease. See leases.cc.
    void check_no_lease_left();

private:
    void build_mds();
    void build_storage(uint64_t number);
    void build_client(uint64_t number);
    void gone(SimNode& node);
    // Nobody uses an inode under the exclusive lease while another client uses it under any.
    void check_lease(size_t client, const client::FileClient& files, InodeId ino);
    void check_all_leases();
    // No storage daemon acts whose place the metadata server has given away.
    void check_fences();
    std::optional<mds::NamespaceReport> check_namespace();
    void check_chunks(const std::set<DataId>& owned);
    void compare(const pb::Chain& chain,
                 const std::map<ChunkId, std::string>& head,
                 const std::map<ChunkId, std::string>& other);

    SimShared& shared_;
    Verdict& verdict_;
    ClusterOptions options_;
    Workload& load_;
    std::unique_ptr<SimNode> mds_;
    std::vector<std::unique_ptr<SimNode>> storage_;
    std::vector<std::unique_ptr<SimNode>> clients_;
    std::vector<bool> working_;
    TimePoint next_look_at_leases_{};
    // Those that the metadata server, while it ran, said had ended.
    std::set<SessionId> sessions_over_;
};

}  // namespace kdfs::sim
