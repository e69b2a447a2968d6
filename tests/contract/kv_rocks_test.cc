#include "kdfs/kv/rocks_kv.h"
#include "kdfs/kv/rocks_reader.h"
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

// The one log of a store in `directory`.
fs::path log_of(const fs::path& directory) {
    for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
        if (entry.path().extension() == ".log") {
            return entry.path();
        }
    }
    ADD_FAILURE() << "no log in " << directory;
    return {};
}

Status put(RocksKv& store, const std::string& key, const std::string& value) {
    KvBatch batch;
    batch.put(key, value);
    KDFS_TRY(store.apply(batch));
    return store.flush();
}

TEST(RocksKvLog, FlushedBatchesDoNotChangeItsSize) {
    InlineOffload offload;
    TemporaryDirectory directory;
    auto opened = RocksKv::open(offload, directory / "kv");
    ASSERT_TRUE(opened.ok());
    ASSERT_TRUE(put(**opened, "a", "1").ok());
    auto size = fs::file_size(log_of(directory / "kv"));
    ASSERT_TRUE(put(**opened, "b", std::string(10000, 'x')).ok());
    EXPECT_EQ(fs::file_size(log_of(directory / "kv")), size);
}

// A power cut may lose any page that was not synced and keep those behind it.
TEST(RocksKvLog, LostPageTakesWhatIsBehindItAlong) {
    InlineOffload offload;
    TemporaryDirectory directory;
    constexpr int kBatches = 100;
    constexpr uint64_t kPage = 4096;
    for (uint64_t page = 1; page < 20; ++page) {
        fs::path copy = directory / std::to_string(page);
        {
            auto opened = RocksKv::open(offload, directory / ("kv" + std::to_string(page)));
            ASSERT_TRUE(opened.ok());
            for (int i = 0; i < kBatches; ++i) {
                ASSERT_TRUE(put(**opened, std::to_string(1000 + i), std::string(900, 'x')).ok());
            }
            fs::copy(directory / ("kv" + std::to_string(page)), copy, fs::copy_options::recursive);
        }
        {
            std::fstream log(log_of(copy), std::ios::in | std::ios::out | std::ios::binary);
            log.seekp(static_cast<std::streamoff>(page * kPage));
            log << std::string(kPage, '\0');
        }
        auto opened = RocksReader::open(copy);
        ASSERT_TRUE(opened.ok()) << opened.error().to_string();
        size_t found = 0;
        auto count = [&](std::string_view key, std::string_view) {
            EXPECT_EQ(key, std::to_string(1000 + found)) << "page " << page;
            ++found;
            return true;
        };
        ASSERT_TRUE((*opened)->scan("", "", count).ok());
        EXPECT_GT(found, (page - 1) * 3);
        EXPECT_LT(found, (page + 1) * 5);
    }
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
