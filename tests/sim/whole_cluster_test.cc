// Whole simulated clusters with chosen failures: everything fails at once, and not every storage
// node comes back.

#include "client/file_client.h"
#include "tests/sim/cluster.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace kdfs::sim {
namespace {

constexpr uint64_t kPieces = 12;  // on different chains
constexpr auto kServedAgain = std::chrono::seconds(20);

std::string text_of(uint64_t piece, const std::string& what) {
    return "piece " + std::to_string(piece) + " " + what;
}

class WholeClusterTest : public ::testing::Test {
protected:
    WholeClusterTest()
        : shared_(1),
          load_(shared_.clock, verdict_, Random(1), WorkloadOptions()),
          cluster_(shared_, verdict_, shape(), load_) {
        load_.stop();
        cluster_.boot_all();
        EXPECT_TRUE(healthy_within(std::chrono::seconds(60)));
        EXPECT_TRUE(run(save("of before"), std::chrono::seconds(10)));
    }

    static ClusterOptions shape() {
        ClusterOptions out;
        out.chains_per_target = 8;
        out.width = 12;
        return out;
    }
    client::FileClient& files() { return *cluster_.files(0); }
    SimNode& client() { return *cluster_.clients()[0]; }
    SimNode& storage(size_t i) { return *cluster_.storage()[i]; }
    void pass(Duration time) { cluster_.run_for(time); }
    bool healthy_within(Duration time) {
        return cluster_.run_until([this] { return cluster_.healthy(); }, time);
    }

    Task<bool> save(std::string what) {
        pb::Create request;
        request.set_parent(kRootInode.value);
        request.set_name("file of " + what);
        request.set_mode(S_IFREG | 0644);
        auto opened = co_await files().create(std::move(request));
        if (!opened.ok()) {
            co_return false;
        }
        for (uint64_t piece = 0; piece < kPieces; ++piece) {
            uint64_t offset = piece * cluster_.options().chunk_bytes;
            client::WriteOp op(opened->id, offset, Buffer::copy_of(text_of(piece, what)));
            auto written = co_await files().write(std::move(op));
            if (!written.ok()) {
                co_return false;
            }
        }
        Status synced = co_await files().fsync(opened->id, false);
        files().release(opened->id);
        co_return synced.ok();
    }
    Task<bool> is_there(std::string what) {
        auto attr = co_await files().lookup(kRootInode, "file of " + what);
        if (!attr.ok()) {
            co_return false;
        }
        auto opened = co_await files().open(InodeId(attr->ino()), client::OpenOptions());
        if (!opened.ok()) {
            co_return false;
        }
        bool right = true;
        for (uint64_t piece = 0; piece < kPieces && right; ++piece) {
            std::string text = text_of(piece, what);
            uint64_t offset = piece * cluster_.options().chunk_bytes;
            auto data = co_await files().read(opened->id, offset, text.size());
            right = data.ok() && data->flatten().view() == text;
        }
        files().release(opened->id);
        co_return right;
    }
    static Task<void> keep(Task<bool> task, std::shared_ptr<std::optional<bool>> out) {
        *out = co_await std::move(task);
    }
    // False as well if it takes longer than `bound`.
    bool run(Task<bool> task, Duration bound) {
        auto out = std::make_shared<std::optional<bool>>();
        client().spawn(keep(std::move(task), out));
        return cluster_.run_until([out] { return out->has_value(); }, bound) && **out;
    }

    enum class Failure { kPower, kKill };
    void fail(SimNode& node, Failure how) {
        if (how == Failure::kPower) {
            cluster_.cut_power(node);
        } else {
            cluster_.kill(node);
        }
    }
    void fail_all_storage(Failure how) {
        for (auto& node : cluster_.storage()) {
            fail(*node, how);
        }
    }
    void boot_storage_without(size_t away) {
        for (size_t i = 0; i < cluster_.storage().size(); ++i) {
            if (i != away) {
                cluster_.boot(storage(i));
            }
        }
    }
    // Everything is served without it, and it catches up when it returns.
    void expect_served_without(size_t away) {
        EXPECT_TRUE(run(is_there("of before"), kServedAgain)) << "without storage " << away;
        EXPECT_TRUE(run(save("of meanwhile"), kServedAgain)) << "without storage " << away;
        cluster_.boot(storage(away));
        EXPECT_TRUE(healthy_within(std::chrono::seconds(60))) << cluster_.what_is_missing();
        EXPECT_TRUE(run(is_there("of before"), kServedAgain));
        EXPECT_TRUE(run(is_there("of meanwhile"), kServedAgain));
        EXPECT_FALSE(verdict_.failed()) << verdict_.what();
    }

    SimShared shared_;
    Verdict verdict_;
    Workload load_;
    Cluster cluster_;
};

class OneStaysAwayTest : public WholeClusterTest, public ::testing::WithParamInterface<size_t> {};

// NOLINTNEXTLINE(bugprone-throwing-static-initialization)
INSTANTIATE_TEST_SUITE_P(Each, OneStaysAwayTest, ::testing::Values(0, 1, 2));

TEST_P(OneStaysAwayTest, AfterEverythingLostPower) {
    for (SimNode* node : cluster_.all()) {
        fail(*node, Failure::kPower);
    }
    cluster_.boot(cluster_.mds());
    cluster_.boot(client());
    boot_storage_without(GetParam());
    ASSERT_TRUE(cluster_.run_until([this] { return client().started(); }, kServedAgain));

    expect_served_without(GetParam());
}

TEST_P(OneStaysAwayTest, AfterAllStorageNodesLostPower) {
    fail_all_storage(Failure::kPower);
    pass(std::chrono::seconds(30));
    boot_storage_without(GetParam());

    expect_served_without(GetParam());
}

TEST_P(OneStaysAwayTest, AfterAllStorageDaemonsWereKilledAndStartedAtOnce) {
    fail_all_storage(Failure::kKill);
    boot_storage_without(GetParam());

    expect_served_without(GetParam());
}

TEST_P(OneStaysAwayTest, AfterTheManagerDiedTooAndTheOthersWaitedForIt) {
    fail_all_storage(Failure::kKill);
    fail(cluster_.mds(), Failure::kKill);
    boot_storage_without(GetParam());
    pass(std::chrono::seconds(3));
    cluster_.boot(cluster_.mds());

    expect_served_without(GetParam());
}

}  // namespace
}  // namespace kdfs::sim
