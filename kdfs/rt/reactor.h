#pragma once

#include "kdfs/base/result.h"
#include "kdfs/rt/scheduler.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/task.h"
#include "kdfs/rt/timer_queue.h"
#include "kdfs/rt/uring_queue.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace kdfs {

// Told when a watched file descriptor is ready. `events` are epoll's bits.
class FdHandler {
public:
    virtual void on_fd_ready(uint32_t events) = 0;

protected:
    ~FdHandler() = default;
};

// Called once at the end of a turn, when everything that was ready has run: the place to hand
// the output of the whole turn to the kernel in one call.
class FlushHandler {
public:
    virtual void flush() = 0;

protected:
    ~FlushHandler() = default;
};

// Asked in each round of a turn, before what was posted runs: for a source of events that shows in
// memory, so that a look costs no system call. It also watches a descriptor, because the loop
// blocks when nothing is there.
class TurnHandler {
public:
    virtual void on_turn() = 0;
    // Something is there for another round at once.
    virtual bool has_more() const = 0;

protected:
    ~TurnHandler() = default;
};

class Reactor;

// Keeps one file descriptor watched; stops when it goes, which may be inside the callback. The
// descriptor stays the caller's and must outlive the watch.
class FdWatch {
public:
    ~FdWatch();
    FdWatch(const FdWatch&) = delete;
    FdWatch& operator=(const FdWatch&) = delete;

private:
    friend class Reactor;
    struct State;
    explicit FdWatch(std::unique_ptr<State> state);

    std::unique_ptr<State> state_;
};

// The real event loop of one thread: an epoll loop for sockets and timers, and an io_uring for
// files whose descriptor the same epoll watches. A turn runs due timers, then what was posted in
// the order it was posted, then the flush handlers; then the ring is entered once if anything was
// queued for it; then the loop blocks until something happens.
//
// Threads: everything belongs to the thread that calls run(), except post_from_any_thread() and
// stop_from_any_thread().
// Bounds: kCallbacksPerRoundMax callbacks run between two looks at the descriptors.
class Reactor : public Scheduler {
public:
    static constexpr size_t kCallbacksPerRoundMax = 1024;

    // kNotPermitted or kNotSupported if the system refuses an io_uring.
    static Result<std::unique_ptr<Reactor>> create();
    ~Reactor() override;
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;

    TimePoint now() const override { return now_; }
    void post(Function<void()> callback) override { ready_.push_back(std::move(callback)); }
    TimerId call_at(TimePoint when, Function<void()> callback) override;
    void cancel(TimerId timer) override { timers_.cancel(timer); }

    // Runs `callback` on the loop; callable from any thread while the reactor lives. Callbacks of
    // one thread run in the order it posted them.
    void post_from_any_thread(Function<void()> callback);

    // Runs turns until stop(). May be called again afterwards.
    void run();
    // Runs what is ready, without blocking.
    void run_posted();
    // Ends run() after the current turn. What is left waits for the next run().
    void stop() { stopping_ = true; }
    void stop_from_any_thread() {
        post_from_any_thread([this] { stop(); });
    }

    // Calls `callback` on the loop for each of `signals` the process gets. Blocks them for this
    // thread and those it starts later, so it comes before the first thread. Call once.
    Status handle_signals(const std::vector<int>& signals, Function<void(int)> callback);

    // Calls `callback` in each turn in which `fd` is readable (level-triggered).
    Result<std::unique_ptr<FdWatch>> watch_readable(int fd, Function<void()> callback);

    // Registers `handler` for epoll's `events` on `fd`; the token is for unwatch(), after which
    // the handler hears nothing more. The handler must outlive its registration.
    Result<uint64_t> watch(int fd, uint32_t events, FdHandler& handler);
    // Waits for other events from now on.
    void change_events(uint64_t token, uint32_t events);
    // Does not touch `fd`, except that epoll forgets it. Call before closing `fd`.
    void unwatch(uint64_t token);
    // Calls `handler` at the end of this turn.
    void request_flush(FlushHandler& handler) { flushes_.push_back(&handler); }
    // Takes back a request. To be called before a handler with a request goes.
    void forget_flush(FlushHandler& handler);

    // At most one; nullptr takes it away. It outlives its registration.
    void set_turn_handler(TurnHandler* handler) { turn_handler_ = handler; }

    UringQueue& ring() { return *ring_; }

private:
    struct WatchSlot {
        FdHandler* handler = nullptr;
        int fd = -1;
        uint32_t generation = 1;
    };

    Reactor() = default;
    Status open();
    void turn();
    void run_ready();
    void run_flushes();
    void run_remote();
    void wait();
    void dispatch(uint64_t token, uint32_t events);

    int epoll_fd_ = -1;
    int wake_fd_ = -1;
    int signal_fd_ = -1;
    TimePoint now_{};
    bool stopping_ = false;
    TimerQueue timers_;
    std::vector<Function<void()>> ready_;
    std::vector<Function<void()>> running_;
    TurnHandler* turn_handler_ = nullptr;
    std::vector<FlushHandler*> flushes_;
    std::vector<FlushHandler*> flushing_;
    std::vector<WatchSlot> watches_;
    std::vector<uint32_t> free_watches_;
    std::unique_ptr<UringQueue> ring_;
    std::unique_ptr<FdWatch> signal_watch_;

    // What other threads posted.
    std::mutex remote_mutex_;
    std::vector<Function<void()>> remote_;
};

namespace detail {

template <class T>
Task<void> capture_result(Reactor& reactor, Task<T> task, std::optional<T>& out) {
    out.emplace(co_await std::move(task));
    reactor.stop();
}

}  // namespace detail

// Runs the loop until `task` has ended and gives its value: for main() and tests. Not ended by
// stop().
template <class T>
T run_task(Reactor& reactor, Task<T> task) {
    TaskScope scope(reactor);
    std::optional<T> out;
    scope.spawn(detail::capture_result<T>(reactor, std::move(task), out));
    while (!out) {
        reactor.run();
    }
    // The last step of the task is posted, perhaps behind much else; the scope must not go before.
    while (scope.running() != 0) {
        reactor.run_posted();
    }
    return std::move(*out);
}

}  // namespace kdfs
