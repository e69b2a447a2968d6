#include "tests/contract/scheduler_contract.h"
#include "tests/contract/sim_world.h"

namespace kdfs::contract {
namespace {

INSTANTIATE_TYPED_TEST_SUITE_P(Sim, SchedulerContract, SimWorld);

TEST(SimScheduler, NothingRunsAfterTheNodeDied) {
    SimWorld world;
    int ran = 0;
    auto token = std::make_shared<int>(1);
    world.scheduler().post([&ran, token] { ++ran; });
    world.scheduler().call_at(world.scheduler().now() + std::chrono::seconds(1),
                              [&ran, token] { ++ran; });

    dynamic_cast<sim::SimEnv&>(world.env()).kill(false);
    world.scheduler().post([&ran, token] { ++ran; });
    while (world.shared().clock.run_one(world.shared().clock.now() + std::chrono::hours(1))) {
    }

    EXPECT_EQ(ran, 0);
    EXPECT_EQ(token.use_count(), 1) << "a dropped callback is destroyed at once";
}

}  // namespace
}  // namespace kdfs::contract
