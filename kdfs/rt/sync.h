#pragma once

#include "kdfs/base/check.h"
#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/rt/scheduler.h"
#include "kdfs/rt/task.h"

#include <coroutine>
#include <list>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace kdfs {

// Everything here belongs to one loop and is used on its thread. A waiter is resumed by a post,
// never from inside the call that wakes it, so no call here runs other code. Destroying a suspended
// coroutine takes it off whatever it waits for.

namespace detail {

struct WaitNode;

// An intrusive list of suspended coroutines, first come first served.
class WaitList {
public:
    WaitList() = default;
    WaitList(const WaitList&) = delete;
    WaitList& operator=(const WaitList&) = delete;
    ~WaitList() { KDFS_CHECK(head_ == nullptr); }

    bool empty() const { return head_ == nullptr; }
    void push_back(WaitNode& node);
    void remove(WaitNode& node);
    // Wakes the first waiter; false if there is none.
    bool wake_one();
    void wake_all();

private:
    WaitNode* head_ = nullptr;
    WaitNode* tail_ = nullptr;
};

struct WaitNode {
    WaitList* list = nullptr;
    WaitNode* previous = nullptr;
    WaitNode* next = nullptr;
    std::coroutine_handle<> handle;
    Scheduler* scheduler = nullptr;
    TimerId timer = 0;
    bool timed_out = false;

    WaitNode() = default;
    WaitNode(const WaitNode&) = delete;
    WaitNode& operator=(const WaitNode&) = delete;
    ~WaitNode();

    template <class Promise>
    void suspend(WaitList& on,
                 std::coroutine_handle<Promise> who,
                 std::optional<TimePoint> deadline) {
        handle = who;
        scheduler = who.promise().scheduler;
        on.push_back(*this);
        if (deadline) {
            timer = scheduler->call_at(*deadline, [this] { expire(); });
        }
    }
    // Takes the node off its list and posts its coroutine.
    void wake();
    void expire();
};

}  // namespace detail

// A flag to wait for. Set and reset as often as wanted; set() wakes everyone who waits.
class Event {
public:
    bool is_set() const { return set_; }
    void set() {
        set_ = true;
        waiters_.wake_all();
    }
    void reset() { set_ = false; }
    // Wakes those who wait now and leaves the flag as it is.
    void pulse() { waiters_.wake_all(); }

    // `co_await event.wait()`: until set() or pulse(). Returns at once while the flag is set.
    auto wait() { return Awaiter(*this, std::nullopt); }
    // The same until `deadline` at most: true if the event came, false if the time ran out.
    auto wait_until(TimePoint deadline) { return Awaiter(*this, deadline); }

private:
    class Awaiter {
    public:
        Awaiter(Event& event, std::optional<TimePoint> deadline)
            : event_(event), deadline_(deadline) {}
        bool await_ready() const { return event_.set_; }
        template <class Promise>
        void await_suspend(std::coroutine_handle<Promise> who) {
            node_.suspend(event_.waiters_, who, deadline_);
        }
        bool await_resume() const { return !node_.timed_out; }

    private:
        Event& event_;
        std::optional<TimePoint> deadline_;
        detail::WaitNode node_;
    };

    bool set_ = false;
    detail::WaitList waiters_;
};

// A counter of permits. acquire() waits for its turn: a large request is not overtaken by small
// ones.
class Semaphore {
public:
    explicit Semaphore(uint64_t permits) : permits_(permits) {}
    Semaphore(const Semaphore&) = delete;
    Semaphore& operator=(const Semaphore&) = delete;

    Task<void> acquire(uint64_t count = 1);
    bool try_acquire(uint64_t count = 1);
    void release(uint64_t count = 1);
    uint64_t available() const { return permits_; }
    uint64_t waiting() const { return waiting_; }

private:
    uint64_t permits_;
    uint64_t waiting_ = 0;
    std::list<std::pair<uint64_t, Event*>> queue_;
};

// Gives permits back when it goes.
class SemaphoreHold {
public:
    SemaphoreHold() = default;
    SemaphoreHold(Semaphore& semaphore, uint64_t count) : semaphore_(&semaphore), count_(count) {}
    SemaphoreHold(SemaphoreHold&& other) noexcept
        : semaphore_(std::exchange(other.semaphore_, nullptr)), count_(other.count_) {}
    SemaphoreHold& operator=(SemaphoreHold&& other) noexcept {
        if (this != &other) {
            release();
            semaphore_ = std::exchange(other.semaphore_, nullptr);
            count_ = other.count_;
        }
        return *this;
    }
    ~SemaphoreHold() { release(); }
    void release() {
        if (semaphore_ != nullptr) {
            std::exchange(semaphore_, nullptr)->release(count_);
        }
    }

private:
    Semaphore* semaphore_ = nullptr;
    uint64_t count_ = 0;
};

// Mutual exclusion between coroutines of one loop: `auto hold = co_await lock(mutex);`.
class AsyncMutex {
public:
    Task<SemaphoreHold> lock();
    bool locked() const { return semaphore_.available() == 0; }
    bool contended() const { return semaphore_.waiting() != 0; }

private:
    Semaphore semaphore_{1};
};

// A value that arrives once, for one waiter.
template <class T>
class Completion {
public:
    bool ready() const { return value_.has_value(); }
    // The first value counts; later ones are ignored.
    void complete(T value) {
        if (!value_) {
            value_.emplace(std::move(value));
            event_.set();
        }
    }
    Task<T> wait() {
        co_await event_.wait();
        co_return std::move(*value_);
    }
    // Nothing if the time runs out first.
    Task<std::optional<T>> wait_until(TimePoint deadline) {
        co_await event_.wait_until(deadline);
        co_return std::move(value_);
    }

private:
    std::optional<T> value_;
    Event event_;
};

// Owns coroutines that nobody awaits. close() waits for all of them; destroying a scope that still
// has some destroys their frames, which only the simulator does, to crash a node.
class TaskScope {
public:
    explicit TaskScope(Scheduler& scheduler);
    TaskScope(const TaskScope&) = delete;
    TaskScope& operator=(const TaskScope&) = delete;
    ~TaskScope();

    // Starts `task` in a later turn of the loop. Ignored once close() was called.
    void spawn(Task<void> task);
    // Starts `task` at once, up to its first suspension.
    void spawn_now(Task<void> task);
    bool closing() const { return closing_; }
    size_t running() const { return tasks_.size(); }
    Scheduler& scheduler() { return scheduler_; }
    // Takes no more tasks and waits for those that run. They are not told: stop them first.
    Task<void> close();

private:
    struct Root;
    struct Entry;
    static Root run(TaskScope* scope, Entry* entry, Task<void> task);
    Entry* add(Task<void> task);
    void finish(Entry* entry);

    Scheduler& scheduler_;
    bool closing_ = false;
    std::list<std::unique_ptr<Entry>> tasks_;
    Event idle_;
};

// Suspends until `when`.
Task<void> sleep_until(Scheduler& scheduler, TimePoint when);
Task<void> sleep_for(Scheduler& scheduler, Duration duration);
// Lets everything else that is ready run first.
Task<void> yield_turn(Scheduler& scheduler);

// Runs all tasks side by side in `scope` and gives their values in the order of the tasks.
template <class T>
Task<std::vector<T>> when_all(TaskScope& scope, std::vector<Task<T>> tasks);

namespace detail {

template <class T>
struct AllState {
    std::vector<std::optional<T>> values;
    size_t missing = 0;
    Event done;
};

template <class T>
Task<void> run_into(std::shared_ptr<AllState<T>> state, size_t index, Task<T> task) {
    state->values[index].emplace(co_await std::move(task));
    if (--state->missing == 0) {
        state->done.set();
    }
}

}  // namespace detail

template <class T>
Task<std::vector<T>> when_all(TaskScope& scope, std::vector<Task<T>> tasks) {
    auto state = std::make_shared<detail::AllState<T>>();
    state->values.resize(tasks.size());
    state->missing = tasks.size();
    KDFS_CHECK(!scope.closing());
    for (size_t i = 0; i < tasks.size(); ++i) {
        scope.spawn_now(detail::run_into<T>(state, i, std::move(tasks[i])));
    }
    if (state->missing != 0) {
        co_await state->done.wait();
    }
    std::vector<T> out;
    out.reserve(state->values.size());
    for (std::optional<T>& value : state->values) {
        out.push_back(std::move(*value));
    }
    co_return out;
}

}  // namespace kdfs
