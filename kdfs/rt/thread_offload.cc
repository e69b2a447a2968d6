#include "kdfs/rt/thread_offload.h"

#include "kdfs/base/check.h"

#include <utility>

namespace kdfs {

struct ThreadOffload::Call {
    Function<Status()> work;
    Status result;
    Event done;
    std::shared_ptr<Semaphore> places;
};

ThreadOffload::ThreadOffload(Reactor& reactor, size_t threads)
    : reactor_(reactor), places_(std::make_shared<Semaphore>(kCallsMax)) {
    KDFS_CHECK(threads > 0);
    threads_.reserve(threads);
    for (size_t i = 0; i < threads; ++i) {
        threads_.emplace_back([this] { work(); });
    }
}

ThreadOffload::~ThreadOffload() {
    {
        std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) {
        thread.join();
    }
}

Task<Status> ThreadOffload::run(Function<Status()> work) {
    auto call = std::make_shared<Call>();
    call->work = std::move(work);
    call->places = places_;
    if (!call->places->try_acquire()) {
        co_await call->places->acquire();
    }
    submit(call);
    co_await call->done.wait();
    co_return std::move(call->result);
}

void ThreadOffload::submit(std::shared_ptr<Call> call) {
    {
        std::lock_guard lock(mutex_);
        queue_.push_back(std::move(call));
    }
    wake_.notify_one();
}

void ThreadOffload::work() {
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) {
            return;
        }
        std::shared_ptr<Call> call = std::move(queue_.front());
        queue_.pop_front();
        lock.unlock();
        call->result = call->work();
        // Moved: this thread holds nothing of the call once the loop may see it.
        auto finish = [call = std::move(call)] {
            call->work = {};
            call->places->release();
            call->done.set();
        };
        reactor_.post_from_any_thread(std::move(finish));
        lock.lock();
    }
}

}  // namespace kdfs
