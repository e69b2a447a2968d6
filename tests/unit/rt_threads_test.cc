// The places where OS threads meet the loop. Also run under ThreadSanitizer.

#include "kdfs/rt/reactor.h"
#include "kdfs/rt/thread_offload.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

std::unique_ptr<Reactor> make_reactor() {
    auto created = Reactor::create();
    KDFS_CHECK(created.ok());
    return std::move(*created);
}

TEST(ReactorThreadsTest, PostsFromManyThreadsAllRunInEachThreadsOrder) {
    constexpr size_t kThreads = 4;
    constexpr size_t kPosts = 2000;
    auto reactor = make_reactor();
    std::vector<std::vector<size_t>> seen(kThreads);
    size_t total = 0;
    std::vector<std::thread> threads;
    for (size_t t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            for (size_t i = 0; i < kPosts; ++i) {
                reactor->post_from_any_thread([&, t, i] {
                    seen[t].push_back(i);
                    if (++total == kThreads * kPosts) {
                        reactor->stop();
                    }
                });
            }
        });
    }

    reactor->run();
    for (std::thread& thread : threads) {
        thread.join();
    }

    for (const std::vector<size_t>& order : seen) {
        ASSERT_EQ(order.size(), kPosts);
        for (size_t i = 0; i < kPosts; ++i) {
            EXPECT_EQ(order[i], i);
        }
    }
}

TEST(ReactorThreadsTest, StopFromAnotherThreadEndsAnIdleLoop) {
    auto reactor = make_reactor();
    std::thread other([&] { reactor->stop_from_any_thread(); });
    reactor->run();
    other.join();
}

TEST(ReactorThreadsTest, WhatWasPostedAndNeverRanIsFreed) {
    auto owned = std::make_shared<int>(1);
    {
        auto reactor = make_reactor();
        std::thread other([&] { reactor->post_from_any_thread([owned] { (void)owned; }); });
        other.join();
    }
    EXPECT_EQ(owned.use_count(), 1);
}

struct Coroutines {
    static Task<Status> add_on_threads(ThreadOffload& offload, int calls) {
        auto sum = std::make_shared<int>(0);
        for (int i = 0; i < calls; ++i) {
            Function<Status()> work = [sum, i]() -> Status {
                *sum += i;
                return {};
            };
            Status done = co_await offload.run(std::move(work));
            KDFS_CO_TRY(std::move(done));
        }
        if (*sum != calls * (calls - 1) / 2) {
            co_return Error(Errc::kIo, "wrong sum");
        }
        co_return Status();
    }
    static Task<Status> fail(ThreadOffload& offload) {
        Function<Status()> work = []() -> Status { return Error(Errc::kNoSpace, "full"); };
        co_return co_await offload.run(std::move(work));
    }
    static Task<void> count(ThreadOffload& offload, std::shared_ptr<std::atomic<int>> counter) {
        Function<Status()> work = [counter]() -> Status {
            ++*counter;
            return {};
        };
        Status done = co_await offload.run(std::move(work));
        (void)done;
    }
    static Task<bool> close(TaskScope& scope) {
        co_await scope.close();
        co_return true;
    }
};

TEST(ThreadOffloadTest, RunsCallsAndResumesOnTheLoop) {
    auto reactor = make_reactor();
    ThreadOffload offload(*reactor, 2);
    EXPECT_TRUE(run_task(*reactor, Coroutines::add_on_threads(offload, 500)).ok());
    EXPECT_EQ(run_task(*reactor, Coroutines::fail(offload)).error().code, Errc::kNoSpace);
}

TEST(ThreadOffloadTest, MoreCallsThanPlacesAllRun) {
    auto reactor = make_reactor();
    ThreadOffload offload(*reactor, 3);
    TaskScope scope(*reactor);
    auto counter = std::make_shared<std::atomic<int>>(0);
    constexpr int kCalls = static_cast<int>(ThreadOffload::kCallsMax) + 500;
    for (int i = 0; i < kCalls; ++i) {
        scope.spawn_now(Coroutines::count(offload, counter));
    }
    run_task(*reactor, Coroutines::close(scope));
    EXPECT_EQ(counter->load(), kCalls);
}

TEST(ThreadOffloadTest, CallOutlivesTheCoroutineThatWaits) {
    auto reactor = make_reactor();
    auto counter = std::make_shared<std::atomic<int>>(0);
    {
        ThreadOffload offload(*reactor, 2);
        TaskScope scope(*reactor);
        for (int i = 0; i < 50; ++i) {
            scope.spawn_now(Coroutines::count(offload, counter));
        }
    }
    EXPECT_EQ(counter->load(), 50);
    reactor.reset();
    EXPECT_EQ(counter.use_count(), 1);
}

TEST(ReactorTest, WatchedDescriptorCallsBackUntilTheWatchGoes) {
    auto reactor = make_reactor();
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    std::unique_ptr<FdWatch> watch;
    int calls = 0;
    auto watched = reactor->watch_readable(ends[0], [&] {
        char byte = 0;
        ASSERT_EQ(::read(ends[0], &byte, 1), 1);
        if (++calls == 3) {
            watch.reset();
            reactor->stop();
        }
    });
    ASSERT_TRUE(watched.ok());
    watch = std::move(*watched);
    ASSERT_EQ(::write(ends[1], "abcd", 4), 4);

    reactor->run();
    reactor->post([&] { reactor->stop(); });
    reactor->run();

    EXPECT_EQ(calls, 3);
    ::close(ends[0]);
    ::close(ends[1]);
}

// In a process of its own, because it changes the signal mask.
TEST(ReactorTest, SignalsArriveOnTheLoop) {
    auto child = [] {
        auto reactor = make_reactor();
        int got = 0;
        std::vector<int> signals{SIGTERM, SIGINT};
        Status taken = reactor->handle_signals(signals, [&](int signal) {
            got = signal;
            reactor->stop();
        });
        reactor->post([] { ::kill(::getpid(), SIGTERM); });
        reactor->run();
        ::_exit(taken.ok() && got == SIGTERM ? 0 : 1);
    };
    EXPECT_EXIT(child(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace kdfs
