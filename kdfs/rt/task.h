#pragma once

#include "kdfs/base/check.h"
#include "kdfs/rt/scheduler.h"

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

namespace kdfs {

template <class T>
class Task;

namespace detail {

// What every coroutine of ours knows: its loop, and who waits for it. The scheduler is handed from
// parent to child at the await, so no coroutine names a loop.
struct PromiseBase {
    Scheduler* scheduler = nullptr;
    std::coroutine_handle<> waiter;
    bool finished = false;

    std::suspend_always initial_suspend() noexcept { return {}; }
    struct FinalAwaiter {
        bool await_ready() noexcept { return false; }
        template <class Promise>
        void await_suspend(std::coroutine_handle<Promise> self) noexcept {
            PromiseBase& promise = self.promise();
            promise.finished = true;
            if (promise.waiter) {
                promise.scheduler->post_resume(promise.waiter);
            }
        }
        void await_resume() noexcept {}
    };
    FinalAwaiter final_suspend() noexcept { return {}; }
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
};

template <class T>
struct Promise : PromiseBase {
    std::optional<T> value;
    Task<T> get_return_object();
    template <class U>
    void return_value(U&& v) {
        value.emplace(std::forward<U>(v));
    }
    T take() {
        KDFS_CHECK(value.has_value());
        return std::move(*value);
    }
};

template <>
struct Promise<void> : PromiseBase {
    Task<void> get_return_object();
    void return_void() {}
    void take() {}
};

}  // namespace detail

// A coroutine that runs when awaited, on the loop of whoever awaits it. Awaited at most once; owned
// by the Task, so destroying the Task destroys the frame. No exceptions: errors are Result values.
//
// A child that finishes without suspending returns straight into its parent; one that finishes
// later posts its parent to the loop. There is no symmetric transfer: g++ 12 overflows the stack
// with it under the sanitizers. See docs/decisions.md for the constructs g++ 12 compiles wrongly;
// tools/tidy.py finds them.
template <class T>
class [[nodiscard]] Task {
public:
    using promise_type = detail::Promise<T>;

    Task() = default;
    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
    Task& operator=(Task&& other) noexcept {
        if (this != &other) {
            destroy();
            handle_ = std::exchange(other.handle_, {});
        }
        return *this;
    }
    ~Task() { destroy(); }

    bool valid() const { return static_cast<bool>(handle_); }

    // The await operations: `co_await std::move(task)` or `co_await make_task()`.
    bool await_ready() const noexcept { return false; }
    template <class ParentPromise>
    bool await_suspend(std::coroutine_handle<ParentPromise> parent) {
        promise_type& promise = handle_.promise();
        promise.scheduler = parent.promise().scheduler;
        KDFS_CHECK(promise.scheduler != nullptr);
        handle_.resume();
        if (promise.finished) {
            return false;
        }
        promise.waiter = parent;
        return true;
    }
    T await_resume() { return handle_.promise().take(); }

private:
    friend promise_type;
    friend class TaskScope;
    explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
    void destroy() {
        if (handle_) {
            handle_.destroy();
            handle_ = {};
        }
    }

    std::coroutine_handle<promise_type> handle_;
};

namespace detail {

template <class T>
Task<T> Promise<T>::get_return_object() {
    return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}

inline Task<void> Promise<void>::get_return_object() {
    return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}

}  // namespace detail
}  // namespace kdfs
