#include "kdfs/rt/sync.h"

namespace kdfs {
namespace detail {

void WaitList::push_back(WaitNode& node) {
    node.list = this;
    node.previous = tail_;
    node.next = nullptr;
    (tail_ != nullptr ? tail_->next : head_) = &node;
    tail_ = &node;
}

void WaitList::remove(WaitNode& node) {
    (node.previous != nullptr ? node.previous->next : head_) = node.next;
    (node.next != nullptr ? node.next->previous : tail_) = node.previous;
    node.list = nullptr;
    node.previous = nullptr;
    node.next = nullptr;
}

bool WaitList::wake_one() {
    if (head_ == nullptr) {
        return false;
    }
    head_->wake();
    return true;
}

void WaitList::wake_all() {
    while (wake_one()) {
    }
}

WaitNode::~WaitNode() {
    if (list != nullptr) {
        list->remove(*this);
    }
    if (timer != 0) {
        scheduler->cancel(timer);
    }
}

void WaitNode::wake() {
    list->remove(*this);
    if (timer != 0) {
        scheduler->cancel(timer);
        timer = 0;
    }
    scheduler->post_resume(handle);
}

void WaitNode::expire() {
    timer = 0;
    timed_out = true;
    list->remove(*this);
    // The timer's callback is a turn of its own, so resuming here runs inside nobody's call.
    handle.resume();
}

}  // namespace detail

Task<void> Semaphore::acquire(uint64_t count) {
    if (try_acquire(count)) {
        co_return;
    }
    Event turn;
    auto place = queue_.emplace(queue_.end(), count, &turn);
    // Leaves the queue also when the waiting coroutine is destroyed.
    struct Leave {
        Semaphore* semaphore;
        std::list<std::pair<uint64_t, Event*>>::iterator place;
        Event* turn;
        uint64_t count;
        bool resumed = false;
        ~Leave() {
            --semaphore->waiting_;
            if (resumed) {
                return;
            }
            if (!turn->is_set()) {
                semaphore->queue_.erase(place);
                count = 0;
            }
            // Gives back what it was granted and could not use, and lets those behind it through.
            semaphore->release(count);
        }
    };
    ++waiting_;
    Leave leave{this, place, &turn, count};
    co_await turn.wait();
    leave.resumed = true;
}

bool Semaphore::try_acquire(uint64_t count) {
    if (!queue_.empty() || permits_ < count) {
        return false;
    }
    permits_ -= count;
    return true;
}

void Semaphore::release(uint64_t count) {
    permits_ += count;
    while (!queue_.empty() && queue_.front().first <= permits_) {
        permits_ -= queue_.front().first;
        Event* turn = queue_.front().second;
        queue_.pop_front();
        turn->set();
    }
}

Task<SemaphoreHold> AsyncMutex::lock() {
    co_await semaphore_.acquire();
    co_return SemaphoreHold(semaphore_, 1);
}

// The coroutine at the root of a scope's task: nobody awaits it, so it reports to the scope.
struct TaskScope::Root {
    struct promise_type {
        Scheduler* scheduler = nullptr;
        Root get_return_object() {
            return Root{std::coroutine_handle<promise_type>::from_promise(*this)};
        }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        void return_void() {}
        [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
    };
    std::coroutine_handle<promise_type> handle;
};

struct TaskScope::Entry {
    std::coroutine_handle<Root::promise_type> handle;
    std::list<std::unique_ptr<Entry>>::iterator place;

    Entry() = default;
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    ~Entry() {
        if (handle) {
            handle.destroy();
        }
    }
};

TaskScope::Root TaskScope::run(TaskScope* scope, Entry* entry, Task<void> task) {
    co_await std::move(task);
    scope->finish(entry);
}

TaskScope::TaskScope(Scheduler& scheduler) : scheduler_(scheduler) {}

TaskScope::~TaskScope() {
    closing_ = true;
    // A frame's destructors may wake or start nothing new in this scope; entries go one by one.
    while (!tasks_.empty()) {
        tasks_.pop_back();
    }
}

TaskScope::Entry* TaskScope::add(Task<void> task) {
    tasks_.push_back(std::make_unique<Entry>());
    Entry* entry = tasks_.back().get();
    entry->place = std::prev(tasks_.end());
    entry->handle = run(this, entry, std::move(task)).handle;
    entry->handle.promise().scheduler = &scheduler_;
    return entry;
}

void TaskScope::spawn(Task<void> task) {
    if (!closing_) {
        scheduler_.post_resume(add(std::move(task))->handle);
    }
}

void TaskScope::spawn_now(Task<void> task) {
    if (!closing_) {
        add(std::move(task))->handle.resume();
    }
}

void TaskScope::finish(Entry* entry) {
    // The frame is still running its last lines: it is destroyed in a turn of its own.
    std::unique_ptr<Entry> last = std::move(*entry->place);
    tasks_.erase(entry->place);
    scheduler_.post([last = std::move(last)] {});
    if (tasks_.empty()) {
        idle_.pulse();
    }
}

Task<void> TaskScope::close() {
    closing_ = true;
    while (!tasks_.empty()) {
        co_await idle_.wait();
    }
}

Task<void> sleep_until(Scheduler& scheduler, TimePoint when) {
    (void)scheduler;
    Event never;
    co_await never.wait_until(when);
}

Task<void> sleep_for(Scheduler& scheduler, Duration duration) {
    return sleep_until(scheduler, scheduler.now() + duration);
}

Task<void> yield_turn(Scheduler& scheduler) {
    Event turn;
    scheduler.post([&turn] { turn.pulse(); });
    co_await turn.wait();
}

}  // namespace kdfs
