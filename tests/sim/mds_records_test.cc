// The metadata server at a start with records that its store did not keep as they were written.

#include "mds/server.h"
#include "tests/sim/processes.h"
#include "tests/sim/sim_node.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace kdfs::sim {
namespace {

class MdsRecordsTest : public ::testing::TestWithParam<const char*> {
protected:
    MdsRecordsTest() : sim_(1) {
        sim_.faults.set_enabled(false);
        PeerIdentity identity;
        identity.name = "mds";
        SimNode::Factory make = [](SimNode& node, Env& env) {
            mds::Options options;
            options.address = kMdsAddress;
            return std::make_unique<MdsProcess>(node, env, options);
        };
        mds_ = std::make_unique<SimNode>(sim_, identity, make);
        start();
    }

    void start() {
        mds_->boot();
        TimePoint until = sim_.clock.now() + std::chrono::seconds(1);
        while (sim_.clock.run_one(until)) {
        }
    }
    // Into the store of the server, which is not running.
    void put(const std::string& key, const std::string& value) {
        KvBatch batch;
        batch.put(key, value);
        MemKvMedium& store = mds_->kv("meta");
        store.apply(batch);
        store.mark_synced(store.applied());
    }

    SimShared sim_;
    std::unique_ptr<SimNode> mds_;
};

TEST_P(MdsRecordsTest, DamagedRecordsOfTheClusterAreRefusedAtTheStart) {
    const std::string key = GetParam();
    ASSERT_TRUE(mds_->started());
    mds_->kill();
    const std::string sound = mds_->kv("meta").map().at(key);
    std::string other_format = sound;
    other_format.front() = static_cast<char>(other_format.front() ^ 0x40);
    for (const std::string& damaged :
         {std::string(), other_format, sound.substr(0, sound.size() - 1), sound + "x"}) {
        put(key, damaged);
        start();
        ASSERT_FALSE(mds_->failure().ok()) << damaged.size() << " bytes";
        EXPECT_EQ(mds_->failure().error().code, Errc::kCorrupt);
        mds_->kill();
    }
    put(key, sound);
    start();
    EXPECT_TRUE(mds_->started());
}

INSTANTIATE_TEST_SUITE_P(Keys, MdsRecordsTest, ::testing::Values("mmap", "mconfirmed"));

}  // namespace
}  // namespace kdfs::sim
