#include "mds/meta_log.h"

#include <algorithm>
#include <utility>

namespace kdfs::mds {

LocalMetaLog::LocalMetaLog(Env& env, KvStore& store, Duration sync_interval)
    : env_(env), store_(store), sync_interval_(sync_interval), scope_(env.scheduler()) {}

Result<uint64_t> LocalMetaLog::append(const KvBatch& batch) {
    if (failed_) {
        return *failed_;
    }
    if (Status applied = store_.apply(batch); !applied.ok()) {
        fail(applied.error());
        return *failed_;
    }
    ++appended_;
    if (!flush_posted_) {
        flush_posted_ = true;
        scope_.spawn(flush_turn());
    }
    if (!sync_planned_) {
        sync_planned_ = true;
        scope_.spawn(sync_later());
    }
    return appended_;
}

Task<void> LocalMetaLog::flush_turn() {
    flush_posted_ = false;
    uint64_t covers = appended_;
    if (Status flushed = store_.flush(); !flushed.ok()) {
        fail(flushed.error());
        co_return;
    }
    flushed_ = std::max(flushed_, covers);
    flush_done_.pulse();
}

void LocalMetaLog::fail(const Error& error) {
    if (!failed_) {
        LogEvent(env_.log(),
                 LogLevel::kError,
                 "metadata journal failed: no change is taken anymore")
            .with("cause", error.to_string())
            .with("next", "check the disk of the state directory, then restart kdfs-mds");
        failed_ = error;
    }
    flush_done_.pulse();
    sync_done_.pulse();
}

Task<Status> LocalMetaLog::committed(uint64_t place) {
    while (flushed_ < place && !failed_) {
        co_await flush_done_.wait();
    }
    if (flushed_ < place) {
        co_return *failed_;
    }
    co_return Status();
}

Task<Status> LocalMetaLog::durable() {
    uint64_t target = appended_;
    while (synced_ < target && !failed_) {
        if (syncing_) {
            co_await sync_done_.wait();
            continue;
        }
        syncing_ = true;
        uint64_t covers = appended_;
        Status synced = co_await store_.sync();
        syncing_ = false;
        if (synced.ok()) {
            synced_ = std::max(synced_, covers);
            flushed_ = std::max(flushed_, covers);
            flush_done_.pulse();
        } else {
            fail(synced.error());
        }
        sync_done_.pulse();
    }
    if (synced_ < target) {
        co_return *failed_;
    }
    co_return Status();
}

Task<void> LocalMetaLog::sync_later() {
    co_await stop_.wait_until(env_.now() + sync_interval_);
    sync_planned_ = false;
    // A failure is kept and told by every later call.
    (void)co_await durable();
}

Task<Status> LocalMetaLog::stop() {
    stop_.set();
    Status last = co_await durable();
    co_await scope_.close();
    co_return last;
}

}  // namespace kdfs::mds
