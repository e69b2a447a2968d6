#pragma once

#include "kdfs/rt/sync.h"
#include "tests/sim/sim_env.h"

#include <gtest/gtest.h>

#include <utility>

namespace kdfs::contract {

// One simulated node for the contract suites.
class SimWorld {
public:
    SimWorld() : shared_(1), env_(shared_, 1, {}), runner_(env_.scheduler()) {}
    Env& env() { return env_; }
    sim::SimShared& shared() { return shared_; }
    Scheduler& scheduler() { return env_.scheduler(); }
    void run_until(Event& done) {
        while (!done.is_set()) {
            bool ran = shared_.clock.run_one(shared_.clock.now() + std::chrono::hours(1));
            ASSERT_TRUE(ran) << "nothing is left to run, and the event has not come";
        }
    }
    void run(Task<void> task) {
        Event done;
        runner_.spawn_now(signal(std::move(task), done));
        run_until(done);
    }

private:
    static Task<void> signal(Task<void> task, Event& done) {
        co_await std::move(task);
        done.set();
    }

    sim::SimShared shared_;
    sim::SimEnv env_;
    TaskScope runner_;
};

}  // namespace kdfs::contract
