#pragma once

#include "kdfs/rt/scheduler.h"
#include "kdfs/rt/sync.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace kdfs::contract {

// What a Scheduler contract suite needs of an implementation. The type given to
// INSTANTIATE_TYPED_TEST_SUITE_P is a world: a class with these members.
//   Scheduler& scheduler();
//   void run_until(Event& done);   // runs the loop until `done` is set
// The world is built anew for each test.
template <class World>
class SchedulerContract : public testing::Test {
protected:
    // Runs until a callback posted now, and all that are due before it, have run.
    void settle(Duration after = Duration::zero()) {
        Event done;
        world_.scheduler().call_at(world_.scheduler().now() + after, [&done] { done.set(); });
        world_.run_until(done);
    }

    World world_;
};

TYPED_TEST_SUITE_P(SchedulerContract);

TYPED_TEST_P(SchedulerContract, PostedCallbacksRunInPostingOrderAndNotInsidePost) {
    Scheduler& scheduler = this->world_.scheduler();
    std::vector<int> order;

    for (int i = 0; i < 5; ++i) {
        scheduler.post([&order, i] { order.push_back(i); });
    }
    EXPECT_TRUE(order.empty());
    this->settle();

    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

TYPED_TEST_P(SchedulerContract, WhatACallbackPostsRunsAfterWhatWasPostedBefore) {
    Scheduler& scheduler = this->world_.scheduler();
    std::string order;

    scheduler.post([&] {
        order += 'a';
        scheduler.post([&order] { order += 'c'; });
        EXPECT_EQ(order, "a");
    });
    scheduler.post([&order] { order += 'b'; });
    this->settle(std::chrono::milliseconds(1));

    EXPECT_EQ(order, "abc");
}

TYPED_TEST_P(SchedulerContract, TimersRunInOrderOfTimeThenOfPosting) {
    Scheduler& scheduler = this->world_.scheduler();
    TimePoint start = scheduler.now();
    TimePoint soon = start + std::chrono::milliseconds(2);
    TimePoint later = start + std::chrono::milliseconds(4);
    std::string order;

    scheduler.call_at(later, [&order] { order += 'd'; });
    scheduler.call_at(soon, [&order] { order += 'a'; });
    scheduler.call_at(soon, [&order] { order += 'b'; });
    scheduler.call_at(soon, [&order] { order += 'c'; });
    this->settle(std::chrono::milliseconds(8));

    EXPECT_EQ(order, "abcd");
}

TYPED_TEST_P(SchedulerContract, TimerNeverRunsBeforeItsTime) {
    Scheduler& scheduler = this->world_.scheduler();
    TimePoint when = scheduler.now() + std::chrono::milliseconds(3);
    TimePoint ran{};
    Event done;

    scheduler.call_at(when, [&] {
        ran = scheduler.now();
        done.set();
    });
    this->world_.run_until(done);

    EXPECT_GE(ran, when);
}

TYPED_TEST_P(SchedulerContract, TimerInThePastRunsLaterNotInsideTheCall) {
    Scheduler& scheduler = this->world_.scheduler();
    Event done;
    bool ran = false;

    scheduler.call_at(scheduler.now() - std::chrono::hours(1), [&] {
        ran = true;
        done.set();
    });
    EXPECT_FALSE(ran);
    this->world_.run_until(done);

    EXPECT_TRUE(ran);
}

TYPED_TEST_P(SchedulerContract, CancelledTimerDoesNotRun) {
    Scheduler& scheduler = this->world_.scheduler();
    bool ran = false;

    TimerId timer = scheduler.call_at(scheduler.now(), [&ran] { ran = true; });
    EXPECT_NE(timer, 0U);
    scheduler.cancel(timer);
    this->settle(std::chrono::milliseconds(2));

    EXPECT_FALSE(ran);
}

TYPED_TEST_P(SchedulerContract, CancellingATimerThatRanOrNoneIsIgnored) {
    Scheduler& scheduler = this->world_.scheduler();
    Event first_done;
    TimerId first = scheduler.call_at(scheduler.now(), [&first_done] { first_done.set(); });
    this->world_.run_until(first_done);
    bool second_ran = false;

    TimerId second = scheduler.call_at(scheduler.now(), [&second_ran] { second_ran = true; });
    scheduler.cancel(first);
    scheduler.cancel(0);
    this->settle(std::chrono::milliseconds(2));

    EXPECT_NE(first, second);
    EXPECT_TRUE(second_ran);
}

TYPED_TEST_P(SchedulerContract, TimerMayCancelAnotherThatIsDueAtTheSameTime) {
    Scheduler& scheduler = this->world_.scheduler();
    TimePoint when = scheduler.now() + std::chrono::milliseconds(1);
    bool ran = false;
    TimerId second = 0;

    scheduler.call_at(when, [&] { scheduler.cancel(second); });
    second = scheduler.call_at(when, [&ran] { ran = true; });
    this->settle(std::chrono::milliseconds(3));

    EXPECT_FALSE(ran);
}

TYPED_TEST_P(SchedulerContract, TimeStandsStillInsideACallback) {
    Scheduler& scheduler = this->world_.scheduler();
    Event done;
    TimePoint first{};
    TimePoint second{};

    scheduler.post([&] {
        first = scheduler.now();
        volatile uint64_t work = 0;
        for (uint64_t i = 0; i < 100000; ++i) {
            work = work + i;
        }
        second = scheduler.now();
        done.set();
    });
    this->world_.run_until(done);

    EXPECT_EQ(first, second);
}

TYPED_TEST_P(SchedulerContract, ManyTimersSetAndCancelledLeaveTheOthersAlone) {
    Scheduler& scheduler = this->world_.scheduler();
    TimePoint when = scheduler.now() + std::chrono::milliseconds(1);
    int ran = 0;
    std::vector<TimerId> timers;
    timers.reserve(1000);

    for (int i = 0; i < 1000; ++i) {
        timers.push_back(scheduler.call_at(when, [&ran] { ++ran; }));
    }
    for (size_t i = 0; i < timers.size(); ++i) {
        if (i % 10 != 0) {
            scheduler.cancel(timers[i]);
        }
    }
    this->settle(std::chrono::milliseconds(3));

    EXPECT_EQ(ran, 100);
}

REGISTER_TYPED_TEST_SUITE_P(SchedulerContract,
                            PostedCallbacksRunInPostingOrderAndNotInsidePost,
                            WhatACallbackPostsRunsAfterWhatWasPostedBefore,
                            TimersRunInOrderOfTimeThenOfPosting,
                            TimerNeverRunsBeforeItsTime,
                            TimerInThePastRunsLaterNotInsideTheCall,
                            CancelledTimerDoesNotRun,
                            CancellingATimerThatRanOrNoneIsIgnored,
                            TimerMayCancelAnotherThatIsDueAtTheSameTime,
                            TimeStandsStillInsideACallback,
                            ManyTimersSetAndCancelledLeaveTheOthersAlone);

}  // namespace kdfs::contract
