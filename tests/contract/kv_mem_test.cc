#include "kdfs/kv/mem_kv.h"
#include "tests/contract/kv_contract.h"
#include "tests/sim/sim_env.h"

#include <memory>

namespace kdfs {
namespace {

class MemHarness {
public:
    MemHarness() : shared_(7), env_(shared_, 1, {}) {
        shared_.faults.set("kv.would_block", 300'000);
        shared_.faults.set_enabled(true);
        open();
    }
    KvStore& store() { return *store_; }
    Scheduler& scheduler() { return env_.scheduler(); }
    void run() {
        while (shared_.clock.run_one(shared_.clock.now() + std::chrono::seconds(10))) {
        }
    }
    void reopen() { open(); }
    void kill_process() {
        store_.reset();
        medium_.kill_process(shared_.random);
        open();
    }
    MemKvMedium& medium() { return medium_; }
    Random& random() { return shared_.random; }

private:
    void open() { store_ = std::make_unique<MemKv>(env_, medium_); }

    sim::SimShared shared_;
    sim::SimEnv env_;
    MemKvMedium medium_;
    std::unique_ptr<MemKv> store_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(MemKv, KvContract, MemHarness);

TEST(MemKvMedium, PowerCutKeepsAPrefixFromTheLastSyncOn) {
    Random random(1);
    bool lost_some = false;
    bool kept_some = false;
    for (int round = 0; round < 200; ++round) {
        MemKvMedium medium;
        for (int i = 0; i < 20; ++i) {
            KvBatch batch;
            batch.put("last", std::to_string(i));
            batch.erase_range("only", "onlz");
            batch.put("only" + std::to_string(i), "");
            medium.apply(batch);
            if (i == 9) {
                medium.mark_synced(medium.applied());
            }
        }
        medium.cut_power(random);
        ASSERT_EQ(medium.map().size(), 2u);
        int last = std::stoi(medium.map().at("last"));
        EXPECT_GE(last, 9);
        EXPECT_TRUE(medium.map().contains("only" + std::to_string(last)));
        lost_some |= last < 19;
        kept_some |= last > 9;
    }
    EXPECT_TRUE(lost_some && kept_some);
}

}  // namespace
}  // namespace kdfs
