#include "kdfs/kv/rocks_kv.h"
#include "tests/contract/kv_contract.h"
#include "tests/sim/sim_env.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

namespace kdfs {
namespace {

namespace fs = std::filesystem;

// Runs the call in place: what the loop sees is the same.
class InlineOffload final : public Offload {
public:
    Task<Status> run(Function<Status()> work) override { co_return work(); }
};

class TemporaryDirectory {
public:
    TemporaryDirectory() {
        std::string path = fs::temp_directory_path() / "kdfs_kv_XXXXXX";
        KDFS_CHECK(::mkdtemp(path.data()) != nullptr);
        path_ = path;
    }
    ~TemporaryDirectory() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    fs::path operator/(const std::string& name) const { return path_ / name; }

private:
    fs::path path_;
};

class RocksHarness {
public:
    RocksHarness() : shared_(7), env_(shared_, 1, {}), path_(directory_ / "0") { open(); }
    KvStore& store() { return *store_; }
    Scheduler& scheduler() { return env_.scheduler(); }
    void run() {
        while (shared_.clock.run_one(shared_.clock.now())) {
        }
    }
    void reopen() {
        store_.reset();
        open();
    }
    void kill_process() {
        // What the operating system has is what a copy of the files shows.
        fs::path copy = directory_ / std::to_string(++copies_);
        fs::copy(path_, copy, fs::copy_options::recursive);
        store_.reset();
        path_ = copy;
        open();
    }

private:
    void open() {
        auto opened = RocksKv::open(offload_, path_.string());
        KDFS_CHECK(opened.ok());
        store_ = std::move(*opened);
    }

    sim::SimShared shared_;
    sim::SimEnv env_;
    InlineOffload offload_;
    TemporaryDirectory directory_;
    fs::path path_;
    int copies_ = 0;
    std::unique_ptr<RocksKv> store_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(RocksKv, KvContract, RocksHarness);

TEST(RocksKvOpen, SaysThatAnotherHasItOpen) {
    InlineOffload offload;
    TemporaryDirectory directory;
    std::string path = directory / "kv";
    auto first = RocksKv::open(offload, path);
    ASSERT_TRUE(first.ok()) << first.error().to_string();
    auto second = RocksKv::open(offload, path);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().code, Errc::kBusy) << second.error().to_string();
    EXPECT_NE(second.error().detail.find(path), std::string::npos);
}

TEST(RocksKvOpen, SaysThatThereIsNone) {
    InlineOffload offload;
    TemporaryDirectory directory;
    RocksKvOptions options;
    options.create_if_missing = false;
    auto opened = RocksKv::open(offload, directory / "kv", options);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().code, Errc::kNotFound) << opened.error().to_string();
}

TEST(RocksKvOpen, SaysThatItIsDamaged) {
    InlineOffload offload;
    TemporaryDirectory directory;
    fs::path path = directory / "kv";
    { ASSERT_TRUE(RocksKv::open(offload, path).ok()); }
    std::ofstream(path / "CURRENT") << "nonsense";
    auto opened = RocksKv::open(offload, path);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().code, Errc::kCorrupt) << opened.error().to_string();
    EXPECT_NE(opened.error().detail.find(path.string()), std::string::npos);
}

}  // namespace
}  // namespace kdfs
