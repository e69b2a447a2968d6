#include "tests/sim/workload.h"

#include "tests/sim/worker.h"

#include <iterator>
#include <utility>

namespace kdfs::sim {

Workload::Workload(SimClock& clock, Verdict& verdict, Random random, WorkloadOptions options)
    : clock_(clock), verdict_(verdict), random_(random), options_(options) {}

std::vector<Task<void>> Workload::start_client(uint64_t client,
                                               client::FileClient& files,
                                               Env& env) {
    std::vector<Task<void>> flows;
    for (int i = 0; i < options_.workers_per_client; ++i) {
        auto worker = std::make_unique<Worker>(*this, client, files, env, random_.fork("worker"));
        flows.push_back(Worker::run(std::move(worker)));
    }
    return flows;
}

void Workload::client_gone(uint64_t client) {
    auto session = sessions_.find(client);
    if (session != sessions_.end()) {
        session_lost(client, session->second);
        sessions_.erase(session);
    }
}

void Workload::session_lost(uint64_t client, SessionId session) {
    if (!lost_sessions_.insert(session).second) {
        return;
    }
    model_.for_each_file([client](ModelInode& file) { file.history.client_lost(client); });
    clients_that_lost_.insert(client);
    settle_later(client);
}

void Workload::saw_session(uint64_t client, SessionId session) {
    SessionId before = sessions_[client];
    if (before && before != session) {
        session_lost(client, before);
    }
    sessions_[client] = session;
}

bool Workload::session_is_lost(uint64_t client, SessionId session) const {
    auto now = sessions_.find(client);
    return now == sessions_.end() || lost_sessions_.contains(session) ||
           (fenced_ && session && fenced_(session));
}

void Workload::ask_sessions() const {
    for (auto [client, session] : sessions_) {
        if (session && fenced_) {
            fenced_(session);
        }
    }
}

bool Workload::notice_lost_sessions() {
    size_t before = lost_sessions_.size();
    auto sessions = sessions_;
    for (auto [client, session] : sessions) {
        if (session && fenced_ && fenced_(session)) {
            session_lost(client, session);
        }
    }
    return lost_sessions_.size() != before;
}

bool Workload::notice_losses() {
    uint64_t now = losses_ ? losses_() : 0;
    if (now <= losses_noticed_) {
        return false;
    }
    losses_noticed_ = now;
    model_.for_each_file([](ModelInode& file) { file.history.chains_lost(); });
    return true;
}

void Workload::check(std::optional<std::string> wrong, const std::string& what, ModelInode* file) {
    (void)file;
    if (wrong) {
        verdict_.wrong(what + ": " + *wrong);
    }
}

void Workload::settle_due() {
    while (!settling_.empty() && settling_.front().when <= clock_.now()) {
        Settling due = settling_.front();
        settling_.pop_front();
        model_.for_each_file([&](ModelInode& file) {
            file.history.settle_client(due.client, due.when - kSettleTime, clock_.now());
        });
    }
    model_.for_each_file([&](ModelInode& file) {
        if (file.exclusive && file.exclusive_until <= clock_.now()) {
            file.history.settle(clock_.now());
            file.exclusive = false;
        }
    });
}

Task<void> Workload::verify(uint64_t client, client::FileClient* files, Env* env) {
    model_.for_each_file([&](ModelInode& file) { file.history.settle(clock_.now()); });
    auto worker = std::make_unique<Worker>(*this, client, *files, *env, random_.fork("verify"));
    co_await worker->resolve_doubts(clock_.now());
    co_await worker->verify_tree();
}

void WorkloadOptions::draw_more(Random& random) {
    constexpr uint64_t kData[] = {10, 50, 50, 80};
    data_percent = kData[random.below(std::size(kData))];
    constexpr int kNames[] = {2, 4, 8};
    names_per_directory = kNames[random.below(std::size(kNames))];
    constexpr uint64_t kSyncs[] = {5, 20, 50};
    fsync_percent = kSyncs[random.below(std::size(kSyncs))];
    if (random.below(3) == 0) {
        think_time_max = std::chrono::milliseconds(30);
    }
    checkpoint_percent = random.below(3) == 0 ? 40 : 0;
}

void WorkloadOptions::draw_harsh(Random& random) {
    if (random.below(2) != 0) {
        return;
    }
    names_per_directory = 2;
    directories_max = 1;
    data_percent = 90;
    think_time_max = std::chrono::milliseconds(30);
    fsync_percent = 20;
    checkpoint_percent = random.below(2) == 0 ? 50 : 0;
}

void Workload::note_storage_power_cut(bool only_copy) {
    storage_lost_power_ = true;
    if (only_copy) {
        power_lost();
        for (const auto& [client, session] : sessions_) {
            settle_later(client);
        }
    }
}

void Workload::power_lost() {
    model_.for_each_file([](ModelInode& file) { file.history.all_lost(); });
}

}  // namespace kdfs::sim
