#include "kdfs/kv/rocks_kv.h"
#include "kdfs/kv/rocks_log_check.h"
#include "kdfs/kv/rocks_reader.h"
#include "tests/contract/kv_contract.h"
#include "tests/sim/sim_env.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

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

fs::path manifest_of(const fs::path& directory) {
    fs::path newest;
    for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
        if (entry.path().filename().string().rfind("MANIFEST-", 0) == 0) {
            newest = std::max(newest, entry.path());
        }
    }
    return newest;
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

Task<void> sync_store(RocksKv* store, bool* done) {
    Status synced = co_await store->sync();
    *done = synced.ok();
}

// With InlineOffload nothing waits.
void sync(RocksKv& store, Scheduler& scheduler) {
    bool done = false;
    TaskScope scope(scheduler);
    scope.spawn_now(sync_store(&store, &done));
    EXPECT_TRUE(done);
}

void flip_bit(const fs::path& file, uint64_t offset) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(offset));
    char byte = static_cast<char>(stream.get());
    stream.seekp(static_cast<std::streamoff>(offset));
    stream.put(static_cast<char>(byte ^ 4));
}

// Puts `count` batches with keys from 1000 + `first` on.
void put_batches(RocksKv& store, int first, int count) {
    for (int i = first; i < first + count; ++i) {
        ASSERT_TRUE(put(store, std::to_string(1000 + i), std::string(900, 'x')).ok());
    }
}

class RocksKvDamage : public testing::Test {
protected:
    fs::path copy_of(const fs::path& store) {
        fs::path copy = directory_ / std::to_string(++copies_);
        fs::copy(store, copy, fs::copy_options::recursive);
        return copy;
    }
    void expect_refused(const fs::path& store) {
        // Also at the second try: the first has changed nothing.
        for (int i = 0; i < 2; ++i) {
            auto opened = RocksKv::open(offload_, store.string());
            ASSERT_FALSE(opened.ok());
            EXPECT_EQ(opened.error().code, Errc::kCorrupt) << opened.error().to_string();
            EXPECT_NE(opened.error().detail.find(store.string()), std::string::npos);
        }
    }

    sim::SimShared shared_{7};
    sim::SimEnv env_{shared_, 1, {}};
    InlineOffload offload_;
    TemporaryDirectory directory_;
    int copies_ = 0;
};

TEST_F(RocksKvDamage, AFlippedBitInTheSyncedPartOfTheLogIsFound) {
    fs::path store = directory_ / "kv";
    auto opened = RocksKv::open(offload_, store.string());
    ASSERT_TRUE(opened.ok());
    put_batches(**opened, 0, 100);
    sync(**opened, env_.scheduler());
    auto synced = static_cast<uint64_t>(100 * 900);
    put_batches(**opened, 100, 10);
    for (uint64_t offset = 3; offset < synced; offset += 997) {
        fs::path copy = copy_of(store);
        flip_bit(log_of(copy), offset);
        expect_refused(copy);
        fs::remove_all(copy);
    }
    // Nobody was told that these are durable.
    for (uint64_t offset : {synced + 10000, synced + 14000}) {
        fs::path copy = copy_of(store);
        flip_bit(log_of(copy), offset);
        auto again = RocksKv::open(offload_, copy.string());
        EXPECT_TRUE(again.ok()) << again.error().to_string();
    }
}

TEST_F(RocksKvDamage, AStoreThatWasClosedIsCoveredToItsEnd) {
    fs::path store = directory_ / "kv";
    {
        auto opened = RocksKv::open(offload_, store.string());
        ASSERT_TRUE(opened.ok());
        put_batches(**opened, 0, 5);
        sync(**opened, env_.scheduler());
    }
    for (uint64_t offset : {0U, 2000U, 3000U, 4500U}) {
        fs::path copy = copy_of(store);
        flip_bit(log_of(copy), offset);
        expect_refused(copy);
    }
    auto again = RocksKv::open(offload_, store.string());
    ASSERT_TRUE(again.ok()) << again.error().to_string();
    EXPECT_TRUE((*again)->get("1004").ok() ||
                (*again)->get("1004").error().code == Errc::kWouldBlock);
}

TEST_F(RocksKvDamage, AFlippedBitAnywhereInTheManifestIsFound) {
    fs::path store = directory_ / "kv";
    for (int i = 0; i < 3; ++i) {
        auto opened = RocksKv::open(offload_, store.string());
        ASSERT_TRUE(opened.ok());
        put_batches(**opened, 5 * i, 5);
        sync(**opened, env_.scheduler());
    }
    uint64_t bytes = fs::file_size(manifest_of(store));
    for (uint64_t offset = 0; offset < bytes; ++offset) {
        fs::path copy = copy_of(store);
        flip_bit(manifest_of(copy), offset);
        expect_refused(copy);
        fs::remove_all(copy);
    }
}

Task<void> read_store(RocksKv* store, std::vector<KvEntry>* into, Status* outcome) {
    *outcome = co_await store->load_range("", "", UINT64_MAX);
    if (outcome->ok()) {
        auto entries = store->scan("", "", UINT64_MAX);
        *outcome = entries.ok() ? Status() : Status(entries.error());
        *into = entries.ok() ? std::move(*entries) : std::vector<KvEntry>();
    }
}

// Those of its files that are no logs.
TEST_F(RocksKvDamage, AFlippedBitInAnyFileIsFoundOrChangesNothing) {
    constexpr size_t kEntries = 40;
    fs::path store = directory_ / "kv";
    for (int i = 0; i < 2; ++i) {
        auto opened = RocksKv::open(offload_, store.string());
        ASSERT_TRUE(opened.ok());
        put_batches(**opened, 20 * i, 20);
        sync(**opened, env_.scheduler());
    }
    // The last log becomes a table, too.
    ASSERT_TRUE(RocksKv::open(offload_, store.string()).ok());
    std::map<std::string, int> found;
    for (const fs::directory_entry& entry : fs::directory_iterator(store)) {
        std::string name = entry.path().filename().string();
        uint64_t bytes = entry.file_size();
        uint64_t step = 1 + bytes / 60;
        for (uint64_t offset = 0; name.rfind("LOG", 0) != 0 && offset < bytes; offset += step) {
            fs::path copy = copy_of(store);
            flip_bit(copy / name, offset);
            auto opened = RocksKv::open(offload_, copy.string());
            Status outcome = opened.ok() ? Status() : Status(opened.error());
            std::vector<KvEntry> entries;
            if (opened.ok()) {
                TaskScope scope(env_.scheduler());
                scope.spawn_now(read_store(opened->get(), &entries, &outcome));
            }
            if (outcome.ok()) {
                ASSERT_EQ(entries.size(), kEntries) << name << " at " << offset;
                for (size_t i = 0; i < kEntries; ++i) {
                    ASSERT_EQ(entries[i].key, std::to_string(1000 + i));
                    ASSERT_EQ(entries[i].value, std::string(900, 'x'));
                }
            } else {
                ++found[entry.path().extension().string()];
                EXPECT_NE(outcome.error().detail.find(copy.string()), std::string::npos);
            }
            fs::remove_all(copy);
        }
    }
    EXPECT_GT(found[".sst"], 0);
}

// A log has what users wrote: also a copy of the log of another store.
TEST_F(RocksKvDamage, MarksOfOtherStoresSayNothing) {
    fs::path store = directory_ / "kv";
    auto opened = RocksKv::open(offload_, store.string());
    ASSERT_TRUE(opened.ok());
    for (const std::string& identity : {std::string(), std::string("another")}) {
        std::string log = log_of(store).filename().string();
        ASSERT_TRUE(put(**opened, "mark", durable_mark(identity, log, 1 << 30)).ok());
    }
    sync(**opened, env_.scheduler());
    auto again = RocksKv::open(offload_, copy_of(store).string());
    EXPECT_TRUE(again.ok()) << again.error().to_string();
}

// What a power cut may leave of a log that goes on behind its synced part.
TEST_F(RocksKvDamage, ATornEndIsNoDamage) {
    constexpr uint64_t kPage = 4096;
    fs::path store = directory_ / "kv";
    auto opened = RocksKv::open(offload_, store.string());
    ASSERT_TRUE(opened.ok());
    put_batches(**opened, 0, 20);
    sync(**opened, env_.scheduler());
    uint64_t synced = 20 * 1000;
    put_batches(**opened, 20, 60);
    for (uint64_t page = synced / kPage + 1; page < 17; ++page) {
        fs::path copy = copy_of(store);
        std::fstream log(log_of(copy), std::ios::in | std::ios::out | std::ios::binary);
        log.seekp(static_cast<std::streamoff>(page * kPage));
        log << std::string(kPage, '\0');
        log.close();
        for (int i = 0; i < 2; ++i) {
            auto again = RocksKv::open(offload_, copy.string());
            ASSERT_TRUE(again.ok()) << again.error().to_string();
            put_batches(**again, 200 + i, 3);
            sync(**again, env_.scheduler());
        }
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
