#include "kdfs/kv/mem_kv.h"

#include "kdfs/base/check.h"

#include <algorithm>

namespace kdfs {

void MemKvMedium::apply(const KvBatch& batch) {
    Undo undo;
    for (const KvBatch::Change& one : batch.changes()) {
        change(one, undo);
    }
    undo_.push_back(std::move(undo));
    ++applied_;
}

void MemKvMedium::change(const KvBatch::Change& change, Undo& undo) {
    switch (change.kind) {
        case KvBatch::Change::Kind::kPut: {
            auto [at, added] = map_.try_emplace(change.key, change.value);
            if (added) {
                undo.emplace_back(change.key, std::nullopt);
            } else {
                undo.emplace_back(change.key, std::move(at->second));
                at->second = change.value;
            }
            return;
        }
        case KvBatch::Change::Kind::kErase: {
            auto at = map_.find(change.key);
            if (at != map_.end()) {
                undo.emplace_back(change.key, std::move(at->second));
                map_.erase(at);
            }
            return;
        }
        case KvBatch::Change::Kind::kEraseRange: {
            auto at = map_.lower_bound(change.key);
            while (at != map_.end() && at->first < change.value) {
                undo.emplace_back(at->first, std::move(at->second));
                at = map_.erase(at);
            }
            return;
        }
    }
}

void MemKvMedium::mark_synced(uint64_t batch) {
    KDFS_CHECK(batch <= applied_);
    while (synced_ < batch) {
        undo_.pop_front();
        ++synced_;
    }
    flushed_ = std::max(flushed_, synced_);
}

void MemKvMedium::kill_process(Random& random) { crash(random.range(flushed_, applied_)); }

void MemKvMedium::cut_power(Random& random) { crash(random.range(synced_, applied_)); }

void MemKvMedium::crash(uint64_t keep) {
    KDFS_CHECK(keep >= synced_ && keep <= applied_);
    for (; applied_ > keep; --applied_) {
        Undo& undo = undo_.back();
        for (auto change = undo.rbegin(); change != undo.rend(); ++change) {
            if (change->second) {
                map_[change->first] = std::move(*change->second);
            } else {
                map_.erase(change->first);
            }
        }
        undo_.pop_back();
    }
    flushed_ = applied_;
}

Result<std::optional<std::string>> MemKv::get(std::string_view key) {
    std::string beyond(key);
    beyond.push_back('\0');
    if (must_load(key, beyond)) {
        return Error(Errc::kWouldBlock, "memory store: the key is not loaded");
    }
    auto at = medium_.map().find(key);
    if (at == medium_.map().end()) {
        return std::optional<std::string>();
    }
    return std::optional<std::string>(at->second);
}

Result<std::vector<KvEntry>> MemKv::scan(std::string_view first,
                                         std::string_view beyond,
                                         uint64_t entries_max) {
    if (must_load(first, beyond)) {
        return Error(Errc::kWouldBlock, "memory store: the range is not loaded");
    }
    std::vector<KvEntry> out;
    for (auto at = medium_.map().lower_bound(first);
         at != medium_.map().end() && out.size() < entries_max;
         ++at) {
        if (!beyond.empty() && at->first >= beyond) {
            break;
        }
        out.push_back({at->first, at->second});
    }
    return out;
}

Task<Status> MemKv::load(std::string key) {
    co_await sleep_for(env_.scheduler(), kLoadTime);
    std::string beyond = key;
    beyond.push_back('\0');
    warm(std::move(key), std::move(beyond));
    co_return Status();
}

Task<Status> MemKv::load_range(std::string first, std::string beyond, uint64_t entries_max) {
    (void)entries_max;
    co_await sleep_for(env_.scheduler(), kLoadTime);
    warm(std::move(first), std::move(beyond));
    co_return Status();
}

bool MemKv::must_load(std::string_view first, std::string_view beyond) {
    if (!env_.fault("kv.would_block")) {
        return false;
    }
    for (const auto& [from, to] : warm_) {
        if (from <= first && (to.empty() || (!beyond.empty() && beyond <= to))) {
            return false;
        }
    }
    return true;
}

void MemKv::warm(std::string first, std::string beyond) {
    warm_.emplace_back(std::move(first), std::move(beyond));
    if (warm_.size() > kWarmRangesMax) {
        warm_.pop_front();
    }
}

Status MemKv::apply(const KvBatch& batch) {
    medium_.apply(batch);
    return {};
}

Status MemKv::flush() {
    medium_.mark_flushed();
    return {};
}

Task<Status> MemKv::sync() {
    uint64_t wanted = medium_.applied();
    while (medium_.synced() < wanted) {
        if (syncing_) {
            co_await sync_done_.wait();
            continue;
        }
        syncing_ = true;
        uint64_t upto = medium_.applied();
        medium_.mark_flushed();
        Duration time = env_.fault("kv.slow_sync") ? kSlowSyncTime : kSyncTime;
        co_await sleep_for(env_.scheduler(), time);
        medium_.mark_synced(upto);
        syncing_ = false;
        sync_done_.pulse();
    }
    co_return Status();
}

}  // namespace kdfs
