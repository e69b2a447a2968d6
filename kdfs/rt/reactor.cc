#include "kdfs/rt/reactor.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <utility>

namespace kdfs {
namespace {

constexpr int kEventsPerWaitMax = 128;
// Tokens of the reactor's own descriptors; those of watches have a generation above bit 31.
constexpr uint64_t kWakeToken = 1;
constexpr uint64_t kRingToken = 2;

TimePoint monotonic_now() {
    timespec at{};
    clock_gettime(CLOCK_MONOTONIC, &at);
    return TimePoint(std::chrono::seconds(at.tv_sec) + std::chrono::nanoseconds(at.tv_nsec));
}

Status add_to_epoll(int epoll_fd, int fd, uint32_t events, uint64_t token) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = token;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        return errno_error(errno, "epoll: cannot watch descriptor " + std::to_string(fd));
    }
    return {};
}

}  // namespace

// The callback stays alive while it runs, also when it destroys its own watch.
struct FdWatch::State final : FdHandler {
    Reactor* reactor = nullptr;
    uint64_t token = 0;
    std::shared_ptr<Function<void()>> callback;

    void on_fd_ready(uint32_t events) override {
        (void)events;
        std::shared_ptr<Function<void()>> running = callback;
        (*running)();
    }
};

FdWatch::FdWatch(std::unique_ptr<State> state) : state_(std::move(state)) {}

FdWatch::~FdWatch() { state_->reactor->unwatch(state_->token); }

Result<std::unique_ptr<Reactor>> Reactor::create() {
    std::unique_ptr<Reactor> reactor(new Reactor());
    KDFS_TRY(reactor->open());
    return reactor;
}

Status Reactor::open() {
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd_ < 0) {
        return errno_error(errno, "epoll_create: the event loop cannot start");
    }
    wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0) {
        return errno_error(errno, "eventfd: the event loop cannot start");
    }
    KDFS_TRY_ASSIGN(ring_, UringQueue::create());
    // Edge-triggered: each write to it is one event, so it is never read.
    KDFS_TRY(add_to_epoll(epoll_fd_, wake_fd_, EPOLLIN | EPOLLET, kWakeToken));
    KDFS_TRY(add_to_epoll(epoll_fd_, ring_->fd(), EPOLLIN, kRingToken));
    now_ = monotonic_now();
    return {};
}

Reactor::~Reactor() {
    signal_watch_.reset();
    // What is left may hold coroutines, whose destructors still use timers and the ring. Each
    // round may leave more behind.
    while (!ready_.empty() || !remote_.empty()) {
        std::vector<Function<void()>> dropped = std::exchange(ready_, {});
        std::vector<Function<void()>> remote = std::exchange(remote_, {});
    }
    timers_.clear();
    ring_.reset();
    for (int fd : {signal_fd_, wake_fd_, epoll_fd_}) {
        if (fd >= 0) {
            close(fd);
        }
    }
}

TimerId Reactor::call_at(TimePoint when, Function<void()> callback) {
    return timers_.add(when, std::move(callback));
}

void Reactor::post_from_any_thread(Function<void()> callback) {
    bool first = false;
    {
        std::lock_guard lock(remote_mutex_);
        first = remote_.empty();
        remote_.push_back(std::move(callback));
    }
    // Who finds the queue empty wakes the loop, which then takes all of it.
    if (first) {
        uint64_t one = 1;
        ssize_t written = ::write(wake_fd_, &one, sizeof one);
        KDFS_CHECK(written == sizeof one);
    }
}

void Reactor::run() {
    stopping_ = false;
    now_ = monotonic_now();
    while (!stopping_) {
        turn();
    }
}

void Reactor::run_posted() {
    run_ready();
    run_flushes();
}

void Reactor::turn() {
    // Bounded by those that are set now, so that one that sets itself anew does not hold the loop.
    for (size_t left = timers_.live(); left > 0 && !stopping_; --left) {
        Function<void()> timer = timers_.take_due(now_);
        if (!timer) {
            break;
        }
        timer();
    }
    // A few rounds, because a completed file operation or a flush often makes more work at once.
    constexpr int kRoundsMax = 4;
    for (int round = 0; round < kRoundsMax && !stopping_; ++round) {
        if (turn_handler_ != nullptr) {
            turn_handler_->on_turn();
        }
        run_ready();
        run_flushes();
        ring_->submit();
        ring_->reap();
        bool more = turn_handler_ != nullptr && turn_handler_->has_more();
        if (ready_.empty() && !ring_->unsubmitted() && !more) {
            break;
        }
    }
    if (!stopping_) {
        wait();
    }
}

void Reactor::run_ready() {
    size_t done = 0;
    while (!ready_.empty() && done < kCallbacksPerRoundMax) {
        std::swap(ready_, running_);
        for (Function<void()>& callback : running_) {
            callback();
            // Destroyed before the next one runs: it may own a coroutine.
            callback = {};
        }
        done += running_.size();
        running_.clear();
    }
}

void Reactor::run_flushes() {
    while (!flushes_.empty()) {
        std::swap(flushes_, flushing_);
        for (size_t i = 0; i < flushing_.size(); ++i) {
            if (FlushHandler* handler = std::exchange(flushing_[i], nullptr)) {
                handler->flush();
            }
        }
        flushing_.clear();
    }
}

void Reactor::forget_flush(FlushHandler& handler) {
    std::replace(flushes_.begin(), flushes_.end(), &handler, static_cast<FlushHandler*>(nullptr));
    std::replace(flushing_.begin(), flushing_.end(), &handler, static_cast<FlushHandler*>(nullptr));
}

void Reactor::run_remote() {
    std::vector<Function<void()>> batch;
    {
        std::lock_guard lock(remote_mutex_);
        batch.swap(remote_);
    }
    for (Function<void()>& callback : batch) {
        ready_.push_back(std::move(callback));
    }
}

void Reactor::wait() {
    int timeout_ms = -1;
    if (!ready_.empty()) {
        timeout_ms = 0;
    } else if (ring_->unsubmitted()) {
        timeout_ms = 1;
    } else if (std::optional<TimePoint> next = timers_.next()) {
        // Rounded up, so that the loop does not wake just before the timer is due.
        auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - monotonic_now()).count();
        constexpr int64_t kWaitMsMax = 3600 * 1000;
        timeout_ms = static_cast<int>(std::clamp<int64_t>(left, 0, kWaitMsMax));
    }
    std::array<epoll_event, kEventsPerWaitMax> events;
    int count = epoll_wait(epoll_fd_, events.data(), kEventsPerWaitMax, timeout_ms);
    KDFS_CHECK(count >= 0 || errno == EINTR);
    // The next turn begins here.
    now_ = monotonic_now();
    for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<size_t>(i)];
        dispatch(event.data.u64, event.events);
    }
}

void Reactor::dispatch(uint64_t token, uint32_t events) {
    if (token == kWakeToken) {
        run_remote();
        return;
    }
    if (token == kRingToken) {
        ring_->reap();
        return;
    }
    // A handler that ran before in this turn may have ended this watch.
    const WatchSlot& slot = watches_[static_cast<uint32_t>(token)];
    if (slot.handler != nullptr && slot.generation == static_cast<uint32_t>(token >> 32)) {
        slot.handler->on_fd_ready(events);
    }
}

Result<uint64_t> Reactor::watch(int fd, uint32_t events, FdHandler& handler) {
    if (free_watches_.empty()) {
        free_watches_.push_back(static_cast<uint32_t>(watches_.size()));
        watches_.emplace_back();
    }
    uint32_t index = free_watches_.back();
    WatchSlot& slot = watches_[index];
    uint64_t token = (static_cast<uint64_t>(slot.generation) << 32) | index;
    KDFS_TRY(add_to_epoll(epoll_fd_, fd, events, token));
    free_watches_.pop_back();
    slot.handler = &handler;
    slot.fd = fd;
    return token;
}

void Reactor::change_events(uint64_t token, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = token;
    int failed =
        epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, watches_[static_cast<uint32_t>(token)].fd, &event);
    KDFS_CHECK(failed == 0);
}

void Reactor::unwatch(uint64_t token) {
    auto index = static_cast<uint32_t>(token);
    WatchSlot& slot = watches_[index];
    KDFS_CHECK(slot.handler != nullptr && slot.generation == static_cast<uint32_t>(token >> 32));
    epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, slot.fd, nullptr);
    slot.handler = nullptr;
    slot.fd = -1;
    slot.generation = slot.generation == UINT32_MAX ? 1 : slot.generation + 1;
    free_watches_.push_back(index);
}

Result<std::unique_ptr<FdWatch>> Reactor::watch_readable(int fd, Function<void()> callback) {
    auto state = std::make_unique<FdWatch::State>();
    state->reactor = this;
    state->callback = std::make_shared<Function<void()>>(std::move(callback));
    KDFS_TRY_ASSIGN(state->token, watch(fd, EPOLLIN, *state));
    return std::unique_ptr<FdWatch>(new FdWatch(std::move(state)));
}

Status Reactor::handle_signals(const std::vector<int>& signals, Function<void(int)> callback) {
    KDFS_CHECK(signal_fd_ < 0);
    sigset_t set;
    sigemptyset(&set);
    for (int signal : signals) {
        sigaddset(&set, signal);
    }
    if (int failed = pthread_sigmask(SIG_BLOCK, &set, nullptr); failed != 0) {
        return errno_error(failed, "pthread_sigmask: cannot take over signals");
    }
    signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd_ < 0) {
        return errno_error(errno, "signalfd: cannot take over signals");
    }
    auto shared = std::make_shared<Function<void(int)>>(std::move(callback));
    auto on_readable = [fd = signal_fd_, shared] {
        signalfd_siginfo info{};
        while (::read(fd, &info, sizeof info) == sizeof info) {
            (*shared)(static_cast<int>(info.ssi_signo));
        }
    };
    KDFS_TRY_ASSIGN(signal_watch_, watch_readable(signal_fd_, std::move(on_readable)));
    return {};
}

}  // namespace kdfs
