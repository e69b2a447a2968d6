#pragma once

#include "kdfs/base/random.h"
#include "kdfs/rt/env.h"
#include "tests/sim/fault_points.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_network.h"

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>

namespace kdfs::sim {

// Which named faults happen, and how often. Each name is drawn once per seed: off, or on with some
// probability, so that seeds differ in kind and not only in timing.
class FaultPlan {
public:
    struct Fault {
        uint32_t ppm = 0;
        uint64_t asked = 0;
        uint64_t happened = 0;
    };
    explicit FaultPlan(uint64_t seed) : seed_(seed), random_(seed ^ 0x6661756c74) {}
    bool draw(std::string_view name);
    void set(const std::string& name, uint32_t ppm) { faults_[name].ppm = ppm; }
    void set_enabled(bool enabled) { enabled_ = enabled; }
    const std::map<std::string, Fault, std::less<>>& faults() const { return faults_; }

private:
    uint64_t seed_;
    Random random_;
    bool enabled_ = false;
    std::map<std::string, Fault, std::less<>> faults_;
};

// Collects the log lines of every node, with virtual time; prints them all or keeps the last ones
// to show when a run fails.
class SimLogBook {
public:
    static constexpr size_t kLinesKept = 400;
    explicit SimLogBook(const SimClock& clock) : clock_(clock) {}
    void set_verbose(bool verbose) { verbose_ = verbose; }
    bool verbose() const { return verbose_; }
    void write(std::string_view node, LogLevel level, std::string_view line);
    const std::deque<std::string>& last_lines() const { return lines_; }
    // What no node may ever say; alarm() is the first line that has it.
    void set_alarm(std::string text) { alarm_text_ = std::move(text); }
    const std::string& alarm() const { return alarm_; }

private:
    const SimClock& clock_;
    bool verbose_ = false;
    std::deque<std::string> lines_;
    std::string alarm_text_;
    std::string alarm_;
};

class SimLog final : public LogSink {
public:
    SimLog(SimLogBook& book, std::string node) : book_(book), node_(std::move(node)) {}
    bool enabled(LogLevel level) const override {
        return book_.verbose() || level >= LogLevel::kInfo;
    }
    void write(LogLevel level, std::string_view line) override { book_.write(node_, level, line); }

private:
    SimLogBook& book_;
    std::string node_;
};

// A node's wall clock: off by a constant, which changes when it is stepped.
class SimWallClock final : public WallClock {
public:
    explicit SimWallClock(const SimClock& clock) : clock_(clock) {}
    WallTime now() const override {
        // 2024-01-01, so that file times look like file times.
        return 1'704'067'200'000'000'000 + (clock_.now().time_since_epoch() + offset_).count();
    }
    void set_offset(Duration offset) { offset_ = offset; }

private:
    const SimClock& clock_;
    Duration offset_{};
};

// What all nodes of a run share.
struct SimShared {
    SimClock clock;
    FaultPlan faults;
    FaultPoints fault_points;
    SimLogBook log_book;
    SimNetwork network;
    Random random;
    OwnerId next_owner = 1;

    explicit SimShared(uint64_t seed)
        : faults(seed),
          fault_points(clock, seed),
          log_book(clock),
          network(clock, Random(seed ^ 0x6e6574)),
          random(seed) {}
};

// The Env of one incarnation of a node.
class SimEnv final : public Env {
public:
    SimEnv(SimShared& shared, MachineId machine, PeerIdentity identity);
    Scheduler& scheduler() override { return scheduler_; }
    WallClock& wall_clock() override { return wall_clock_; }
    Transport& transport() override { return transport_; }
    Random& random() override { return random_; }
    LogSink& log() override { return log_; }
    bool fault(std::string_view name) override { return shared_.faults.draw(name); }
    void fault_point(std::string_view name) override {
        shared_.fault_points.pass(name, scheduler_.owner());
    }

    // The process is gone: nothing it began goes on. Call it before destroying what uses this.
    void kill(bool silent);
    SimWallClock& sim_wall_clock() { return wall_clock_; }
    SimScheduler& sim_scheduler() { return scheduler_; }

private:
    SimShared& shared_;
    SimScheduler scheduler_;
    SimWallClock wall_clock_;
    SimTransport transport_;
    Random random_;
    SimLog log_;
};

}  // namespace kdfs::sim
