#include "kdfs/rt/reactor.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

class SyncTest : public testing::Test {
protected:
    SyncTest() {
        auto created = Reactor::create();
        KDFS_CHECK(created.ok());
        reactor_ = std::move(*created);
    }
    // Runs everything that is ready.
    void settle() { run_task(*reactor_, turns()); }
    static Task<bool> turns_on(Scheduler& scheduler) {
        for (int i = 0; i < 20; ++i) {
            co_await yield_turn(scheduler);
        }
        co_return true;
    }
    Task<bool> turns() { return turns_on(*reactor_); }
    TimePoint soon() { return reactor_->now() + std::chrono::milliseconds(2); }

    std::unique_ptr<Reactor> reactor_;
    std::string trace_;
};

struct Coroutines {
    static Task<void> note(std::string& trace, std::string what) {
        trace += what;
        co_return;
    }
    static Task<void> wait_and_note(Event& event, std::string& trace, char what) {
        co_await event.wait();
        trace += what;
    }
    static Task<void> wait_until_and_note(Event& event, TimePoint when, std::string& trace) {
        bool came = co_await event.wait_until(when);
        trace += came ? 'y' : 'n';
    }
    static Task<void> hold(Semaphore& semaphore,
                           uint64_t count,
                           Event& let_go,
                           std::string& trace) {
        co_await semaphore.acquire(count);
        SemaphoreHold held(semaphore, count);
        trace += static_cast<char>('0' + count);
        co_await let_go.wait();
    }
    static Task<void> locked(AsyncMutex& mutex, Scheduler& scheduler, std::string& trace) {
        SemaphoreHold held = co_await mutex.lock();
        trace += '(';
        co_await yield_turn(scheduler);
        trace += ')';
    }
    static Task<void> close_scope(TaskScope& scope, std::string& trace) {
        co_await scope.close();
        trace += '!';
    }
    static Task<int> number(Scheduler& scheduler, int turns, int value) {
        for (int i = 0; i < turns; ++i) {
            co_await yield_turn(scheduler);
        }
        co_return value;
    }
    static Task<std::vector<int>> all(TaskScope& scope, Scheduler& scheduler) {
        std::vector<Task<int>> tasks;
        tasks.push_back(number(scheduler, 5, 1));
        tasks.push_back(number(scheduler, 0, 2));
        tasks.push_back(number(scheduler, 2, 3));
        co_return co_await when_all<int>(scope, std::move(tasks));
    }
    static Task<std::optional<int>> completion(Completion<int>& value, TimePoint deadline) {
        co_return co_await value.wait_until(deadline);
    }
    static Task<bool> slept(Scheduler& scheduler, Duration time) {
        TimePoint start = scheduler.now();
        co_await sleep_for(scheduler, time);
        co_return scheduler.now() - start >= time;
    }
    static Task<void> keep(std::shared_ptr<int> owned, Event& event) {
        co_await event.wait();
        *owned = 1;
    }
    static Task<void> parent(std::shared_ptr<int> owned, Event& event) {
        co_await keep(owned, event);
    }
};

TEST_F(SyncTest, TaskIsLazy) {
    Task<void> task = Coroutines::note(trace_, "ran");
    settle();
    EXPECT_EQ(trace_, "");
}

TEST_F(SyncTest, SpawnStartsLaterSpawnNowAtOnce) {
    TaskScope scope(*reactor_);
    scope.spawn(Coroutines::note(trace_, "later"));
    EXPECT_EQ(trace_, "");
    scope.spawn_now(Coroutines::note(trace_, "now "));
    EXPECT_EQ(trace_, "now ");
    settle();
    EXPECT_EQ(trace_, "now later");
    EXPECT_EQ(scope.running(), 0U);
}

TEST_F(SyncTest, EventWakesAllInOrderAndNotInsideSet) {
    Event event;
    TaskScope scope(*reactor_);
    for (char c : {'a', 'b', 'c'}) {
        scope.spawn_now(Coroutines::wait_and_note(event, trace_, c));
    }
    event.set();
    EXPECT_EQ(trace_, "");
    settle();
    EXPECT_EQ(trace_, "abc");
    scope.spawn_now(Coroutines::wait_and_note(event, trace_, 'd'));
    EXPECT_EQ(trace_, "abcd");
}

TEST_F(SyncTest, PulseWakesOnlyThoseThatWait) {
    Event event;
    TaskScope scope(*reactor_);
    scope.spawn_now(Coroutines::wait_and_note(event, trace_, 'a'));
    event.pulse();
    scope.spawn_now(Coroutines::wait_and_note(event, trace_, 'b'));
    settle();
    EXPECT_EQ(trace_, "a");
    event.set();
    settle();
    EXPECT_EQ(trace_, "ab");
}

TEST_F(SyncTest, WaitUntilTellsEventFromTimeout) {
    Event never;
    Event event;
    TaskScope scope(*reactor_);
    scope.spawn_now(Coroutines::wait_until_and_note(never, soon(), trace_));
    run_task(*reactor_, Coroutines::slept(*reactor_, std::chrono::milliseconds(5)));
    EXPECT_EQ(trace_, "n");
    scope.spawn_now(Coroutines::wait_until_and_note(event, soon() + std::chrono::hours(1), trace_));
    event.set();
    settle();
    EXPECT_EQ(trace_, "ny");
}

TEST_F(SyncTest, DestroyedWaiterLeavesTheEventAndItsTimer) {
    Event event;
    auto owned = std::make_shared<int>(0);
    {
        TaskScope scope(*reactor_);
        scope.spawn_now(Coroutines::parent(owned, event));
        scope.spawn_now(Coroutines::wait_until_and_note(event, soon(), trace_));
        EXPECT_EQ(owned.use_count(), 3);
    }
    EXPECT_EQ(owned.use_count(), 1);
    event.set();
    run_task(*reactor_, Coroutines::slept(*reactor_, std::chrono::milliseconds(5)));
    EXPECT_EQ(trace_, "");
    EXPECT_EQ(*owned, 0);
}

TEST_F(SyncTest, SemaphoreServesInOrderAlsoALargeRequest) {
    Semaphore semaphore(3);
    Event let_go;
    Event later;
    TaskScope scope(*reactor_);
    scope.spawn_now(Coroutines::hold(semaphore, 2, let_go, trace_));
    scope.spawn_now(Coroutines::hold(semaphore, 3, later, trace_));
    scope.spawn_now(Coroutines::hold(semaphore, 1, later, trace_));
    EXPECT_EQ(trace_, "2");
    EXPECT_FALSE(semaphore.try_acquire(1));
    EXPECT_EQ(semaphore.waiting(), 2U);
    let_go.set();
    settle();
    EXPECT_EQ(trace_, "23");
    later.set();
    settle();
    EXPECT_EQ(trace_, "231");
    EXPECT_EQ(semaphore.available(), 3U);
}

TEST_F(SyncTest, DestroyedWaiterLeavesTheSemaphoresQueue) {
    Semaphore semaphore(1);
    Event let_go;
    TaskScope scope(*reactor_);
    scope.spawn_now(Coroutines::hold(semaphore, 1, let_go, trace_));
    {
        TaskScope crashed(*reactor_);
        crashed.spawn_now(Coroutines::hold(semaphore, 1, let_go, trace_));
    }
    EXPECT_EQ(semaphore.waiting(), 0U);
    let_go.set();
    settle();
    EXPECT_EQ(trace_, "1");
    EXPECT_EQ(semaphore.available(), 1U);
}

// It was given its turn, but is destroyed before it runs: what it got must not be lost.
TEST_F(SyncTest, PermitsOfAWaiterDestroyedOnItsTurnComeBack) {
    Semaphore semaphore(1);
    ASSERT_TRUE(semaphore.try_acquire());
    Event let_go;
    {
        TaskScope crashed(*reactor_);
        crashed.spawn_now(Coroutines::hold(semaphore, 1, let_go, trace_));
        semaphore.release();
    }
    EXPECT_EQ(semaphore.available(), 1U);
}

TEST_F(SyncTest, MutexHoldersDoNotOverlap) {
    AsyncMutex mutex;
    TaskScope scope(*reactor_);
    for (int i = 0; i < 3; ++i) {
        scope.spawn(Coroutines::locked(mutex, *reactor_, trace_));
    }
    settle();
    EXPECT_EQ(trace_, "()()()");
    EXPECT_FALSE(mutex.locked());
}

TEST_F(SyncTest, CompletionTakesTheFirstValueOrTimesOut) {
    Completion<int> value;
    value.complete(1);
    value.complete(2);
    EXPECT_EQ(run_task(*reactor_, Coroutines::completion(value, soon())), 1);
    Completion<int> never;
    EXPECT_EQ(run_task(*reactor_, Coroutines::completion(never, soon())), std::nullopt);
}

TEST_F(SyncTest, CloseWaitsForAllAndTakesNoMore) {
    Event event;
    TaskScope scope(*reactor_);
    TaskScope outer(*reactor_);
    scope.spawn_now(Coroutines::wait_and_note(event, trace_, 'a'));
    outer.spawn_now(Coroutines::close_scope(scope, trace_));
    scope.spawn(Coroutines::note(trace_, "refused"));
    settle();
    EXPECT_EQ(trace_, "");
    event.set();
    settle();
    EXPECT_EQ(trace_, "a!");
}

TEST_F(SyncTest, WhenAllKeepsTheOrderOfTheTasks) {
    TaskScope scope(*reactor_);
    EXPECT_EQ(run_task(*reactor_, Coroutines::all(scope, *reactor_)), (std::vector<int>{1, 2, 3}));
}

TEST_F(SyncTest, SleepTakesItsTime) {
    EXPECT_TRUE(run_task(*reactor_, Coroutines::slept(*reactor_, std::chrono::milliseconds(3))));
}

}  // namespace
}  // namespace kdfs
