#pragma once

#include "kdfs/kv/mem_kv.h"
#include "kdfs/rt/sync.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_env.h"

#include <functional>
#include <map>
#include <memory>
#include <string>

namespace kdfs::sim {

// What runs on a node: the objects a main() would build. Destroying it while it works is a crash.
class Process {
public:
    virtual ~Process() = default;
    // Completes once it serves; an error means that the process ends with a message.
    virtual Task<Status> start() = 0;
    // Ends it in good order.
    virtual Task<void> stop() = 0;
};

// A machine with one process, its disks and its key-value stores. kill() and cut_power() destroy
// the process in the middle of whatever it does; boot() builds a new one from what the media kept.
class SimNode {
public:
    using Factory = std::function<std::unique_ptr<Process>(SimNode&, Env&)>;

    SimNode(SimShared& shared, PeerIdentity identity, Factory factory);
    ~SimNode();

    void boot();
    // kill -9: the kernel closes the connections and keeps what was written.
    void kill();
    // The machine goes: nobody is told, and what was not synced may be lost.
    void cut_power();
    // SIGSTOP and SIGCONT: time goes on meanwhile, and what happens to it waits.
    void pause();
    void resume();
    // Whether this is the process now running here.
    bool is(OwnerId owner) const;
    bool running() const { return life_ != nullptr; }
    // start() completed and nothing went wrong.
    bool started() const;
    // How start() failed, if it did.
    const Status& failure() const { return failure_; }

    const std::string& name() const { return identity_.name; }
    MachineId machine() const { return machine_; }
    Env& env();
    Process& process();
    // Runs `task` on the node; it is destroyed if the node crashes.
    void spawn(Task<void> task);
    // The node's media, made when first asked for.
    DiskMedium& disk(const std::string& name, uint64_t capacity_bytes);
    MemKvMedium& kv(const std::string& name) { return stores_[name]; }
    // Counts the starts of the machine, from 1.
    uint64_t machine_starts() const { return machine_starts_; }
    // Small files that the process writes durably.
    std::map<std::string, std::string>& notes() { return notes_; }
    std::map<std::string, std::unique_ptr<DiskMedium>>& disks() { return disks_; }
    void set_wall_offset(Duration offset);
    // How fast its monotonic clock runs, from the next boot on.
    void set_drift(int64_t ppm) { drift_ppm_ = ppm; }

private:
    struct Life;
    void crash(bool power);
    static Task<void> run(SimNode* node);

    SimShared& shared_;
    PeerIdentity identity_;
    MachineId machine_;
    Factory factory_;
    Duration wall_offset_{};
    int64_t drift_ppm_ = 0;
    uint64_t machine_starts_ = 1;
    std::map<std::string, std::unique_ptr<DiskMedium>> disks_;
    std::map<std::string, MemKvMedium> stores_;
    std::map<std::string, std::string> notes_;
    Status failure_;
    std::unique_ptr<Life> life_;
};

}  // namespace kdfs::sim
