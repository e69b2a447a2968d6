#include "tests/sim/sim_node.h"

#include "kdfs/base/check.h"

#include <utility>

namespace kdfs::sim {

// One incarnation. Destroyed from the last member to the first: coroutines, process, environment.
struct SimNode::Life {
    SimEnv env;
    std::unique_ptr<Process> process;
    bool started = false;
    TaskScope scope;

    Life(SimShared& shared, MachineId machine, const PeerIdentity& identity)
        : env(shared, machine, identity), scope(env.scheduler()) {}
};

SimNode::SimNode(SimShared& shared, PeerIdentity identity, Factory factory)
    : shared_(shared),
      identity_(std::move(identity)),
      machine_(static_cast<MachineId>(shared.network.next_id())),
      factory_(std::move(factory)) {}

SimNode::~SimNode() {
    if (life_) {
        life_->env.kill(false);
    }
}

void SimNode::boot() {
    KDFS_CHECK(life_ == nullptr);
    failure_ = Status();
    shared_.network.set_power(machine_, true);
    life_ = std::make_unique<Life>(shared_, machine_, identity_);
    life_->env.sim_wall_clock().set_offset(wall_offset_);
    life_->env.sim_scheduler().set_drift(drift_ppm_);
    life_->process = factory_(*this, life_->env);
    life_->scope.spawn(run(this));
}

Task<void> SimNode::run(SimNode* node) {
    Status status = co_await node->life_->process->start();
    node->life_->started = status.ok();
    node->failure_ = std::move(status);
}

void SimNode::kill() { crash(false); }

void SimNode::cut_power() {
    crash(true);
    shared_.network.set_power(machine_, false);
    ++machine_starts_;
}

void SimNode::crash(bool power) {
    if (!life_) {
        return;
    }
    shared_.log_book.write(name(), LogLevel::kInfo, power ? "*** power cut" : "*** killed");
    life_->env.kill(power);
    life_.reset();
    for (auto& [name, disk] : disks_) {
        power ? disk->cut_power(shared_.random) : disk->kill_process(shared_.random);
    }
    for (auto& [name, store] : stores_) {
        power ? store.cut_power(shared_.random) : store.kill_process(shared_.random);
    }
}

bool SimNode::is(OwnerId owner) const {
    return life_ && life_->env.sim_scheduler().owner() == owner;
}

void SimNode::pause() {
    if (life_) {
        shared_.log_book.write(name(), LogLevel::kInfo, "*** stopped");
        shared_.clock.hold(life_->env.sim_scheduler().owner());
    }
}

void SimNode::resume() {
    if (life_) {
        shared_.log_book.write(name(), LogLevel::kInfo, "*** goes on");
        shared_.clock.release(life_->env.sim_scheduler().owner());
    }
}

bool SimNode::started() const { return life_ != nullptr && life_->started; }

Env& SimNode::env() {
    KDFS_CHECK(life_ != nullptr);
    return life_->env;
}

Process& SimNode::process() {
    KDFS_CHECK(life_ != nullptr);
    return *life_->process;
}

void SimNode::spawn(Task<void> task) {
    KDFS_CHECK(life_ != nullptr);
    life_->scope.spawn(std::move(task));
}

DiskMedium& SimNode::disk(const std::string& name, uint64_t capacity_bytes) {
    std::unique_ptr<DiskMedium>& disk = disks_[name];
    if (!disk) {
        disk = std::make_unique<DiskMedium>(capacity_bytes);
    }
    return *disk;
}

void SimNode::set_wall_offset(Duration offset) {
    wall_offset_ = offset;
    if (life_) {
        life_->env.sim_wall_clock().set_offset(offset);
    }
}

}  // namespace kdfs::sim
