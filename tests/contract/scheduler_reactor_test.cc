#include "tests/contract/real_world.h"
#include "tests/contract/scheduler_contract.h"

namespace kdfs::contract {

INSTANTIATE_TYPED_TEST_SUITE_P(Reactor, SchedulerContract, RealWorld);

}  // namespace kdfs::contract
