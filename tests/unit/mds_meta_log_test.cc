#include "kdfs/base/spdlog_sink.h"
#include "mds/meta_log.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>
#include <utility>

namespace kdfs::mds {
namespace {

// A loop on a clock that jumps.
class TestScheduler final : public Scheduler {
public:
    TimePoint now() const override { return now_; }
    void post(Function<void()> callback) override { ready_.push_back(std::move(callback)); }
    TimerId call_at(TimePoint when, Function<void()> callback) override {
        TimerId id = next_++;
        timers_.emplace(std::pair(when, id), std::move(callback));
        return id;
    }
    void cancel(TimerId timer) override {
        for (auto it = timers_.begin(); it != timers_.end(); ++it) {
            if (it->first.second == timer) {
                timers_.erase(it);
                return;
            }
        }
    }
    void run_ready() {
        while (!ready_.empty()) {
            Function<void()> next = std::move(ready_.front());
            ready_.pop_front();
            next();
        }
    }
    void run_for(Duration time) {
        TimePoint until = now_ + time;
        run_ready();
        while (!timers_.empty() && timers_.begin()->first.first <= until) {
            auto node = timers_.extract(timers_.begin());
            now_ = node.key().first;
            node.mapped()();
            run_ready();
        }
        now_ = until;
    }

private:
    TimePoint now_{};
    TimerId next_ = 1;
    std::deque<Function<void()>> ready_;
    std::map<std::pair<TimePoint, TimerId>, Function<void()>> timers_;
};

class TestEnv final : public Env, public WallClock {
public:
    Scheduler& scheduler() override { return scheduler_; }
    WallClock& wall_clock() override { return *this; }
    WallTime now() const override { return 0; }
    Transport& transport() override { std::abort(); }
    Random& random() override { return random_; }
    LogSink& log() override { return log_; }
    TestScheduler& loop() { return scheduler_; }

private:
    TestScheduler scheduler_;
    Random random_{1};
    NullLogSink log_;
};

// Counts calls; sync() takes a turn of the loop.
class CountingStore final : public KvStore {
public:
    explicit CountingStore(Scheduler& scheduler) : scheduler_(scheduler) {}
    Result<std::optional<std::string>> get(std::string_view) override {
        return std::optional<std::string>();
    }
    Result<std::vector<KvEntry>> scan(std::string_view, std::string_view, uint64_t) override {
        return std::vector<KvEntry>();
    }
    Task<Status> load(std::string) override { co_return Status(); }
    Task<Status> load_range(std::string, std::string, uint64_t) override { co_return Status(); }
    Status apply(const KvBatch&) override {
        ++applied;
        return failure;
    }
    Status flush() override {
        ++flushed;
        return failure;
    }
    Task<Status> sync() override {
        ++synced;
        co_await yield_turn(scheduler_);
        co_return failure;
    }
    int applied = 0;
    int flushed = 0;
    int synced = 0;
    Status failure;

private:
    Scheduler& scheduler_;
};

class MetaLogTest : public ::testing::Test {
protected:
    MetaLogTest()
        : store_(env_.scheduler()),
          log_(env_, store_, std::chrono::seconds(1)),
          scope_(env_.scheduler()) {}

    uint64_t append() {
        KvBatch batch;
        batch.put("k", "v");
        auto place = log_.append(batch);
        EXPECT_TRUE(place.ok());
        return place.ok() ? *place : 0;
    }
    static Task<void> wait(Task<Status> task, int* done, Status* outcome) {
        *outcome = co_await std::move(task);
        ++*done;
    }
    void spawn(Task<Status> task) { scope_.spawn_now(wait(std::move(task), &done_, &outcome_)); }

    TestEnv env_;
    CountingStore store_;
    LocalMetaLog log_;
    int done_ = 0;
    Status outcome_;
    TaskScope scope_;
};

TEST_F(MetaLogTest, AllBatchesOfATurnShareOneFlush) {
    for (int i = 0; i < 5; ++i) {
        spawn(log_.committed(append()));
    }
    EXPECT_EQ(done_, 0);

    env_.loop().run_ready();

    EXPECT_EQ(done_, 5);
    EXPECT_EQ(store_.applied, 5);
    EXPECT_EQ(store_.flushed, 1);
    EXPECT_EQ(store_.synced, 0);
}

TEST_F(MetaLogTest, ChangesAreSyncedWithinTheInterval) {
    append();
    env_.loop().run_for(std::chrono::milliseconds(999));
    EXPECT_EQ(store_.synced, 0);

    env_.loop().run_for(std::chrono::milliseconds(1));

    EXPECT_EQ(store_.synced, 1);
    env_.loop().run_for(std::chrono::seconds(10));
    EXPECT_EQ(store_.synced, 1);
}

TEST_F(MetaLogTest, ConcurrentDurableCallsShareSyncs) {
    append();
    for (int i = 0; i < 4; ++i) {
        spawn(log_.durable());
    }
    append();
    spawn(log_.durable());

    env_.loop().run_ready();

    EXPECT_EQ(done_, 5);
    EXPECT_EQ(store_.synced, 2);
}

TEST_F(MetaLogTest, NothingToSyncCompletesAtOnce) {
    spawn(log_.durable());

    EXPECT_EQ(done_, 1);
    EXPECT_EQ(store_.synced, 0);
}

TEST_F(MetaLogTest, AFailureReachesEveryWaiterAndEveryLaterCall) {
    uint64_t place = append();
    spawn(log_.committed(place));
    store_.failure = Error(Errc::kIo, "disk");

    env_.loop().run_ready();

    EXPECT_EQ(done_, 1);
    EXPECT_EQ(outcome_.error().code, Errc::kIo);
    EXPECT_FALSE(log_.append(KvBatch()).ok());
    spawn(log_.durable());
    EXPECT_EQ(outcome_.error().code, Errc::kIo);
}

}  // namespace
}  // namespace kdfs::mds
