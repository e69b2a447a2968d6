#include "tests/sim/worker.h"

#include <algorithm>
#include <utility>

namespace kdfs::sim {

Task<void> Worker::run(std::unique_ptr<Worker> self) {
    // Counts the operation under way also when the client dies in it.
    struct Running {
        Workload& load;
        explicit Running(Workload& l) : load(l) { load.begin_operation(); }
        ~Running() { load.end_operation(); }
    };
    Worker& worker = *self;
    while (!worker.load_.stopping()) {
        {
            Running running(worker.load_);
            worker.load_.settle_due();
            worker.handle_session_ = SessionId();
            uint64_t dice = worker.random_.below(100);
            if (dice < worker.load_.options().data_percent) {
                ModelRef file = worker.choose_file();
                if (file && worker.random_.below(10) == 0) {
                    co_await worker.truncate(std::move(file));
                } else if (file) {
                    co_await worker.use_file(std::move(file));
                }
            } else if (dice % 3 == 0) {
                co_await worker.look();
            } else if (dice % 7 == 0) {
                co_await worker.resolve_doubts(worker.load_.now() - Workload::kSettleTime);
            } else {
                co_await worker.change_names();
            }
        }
        auto most = static_cast<uint64_t>(worker.load_.options().think_time_max.count());
        Duration pause(static_cast<int64_t>(worker.random_.range(0, most)));
        co_await sleep_for(worker.env_.scheduler(), pause);
    }
}

ModelRef Worker::choose_file() {
    std::vector<ModelRef> files;
    for (const ModelRef& directory : load_.model().directories()) {
        for (const auto& [name, entry] : directory->names) {
            if (entry.inode && entry.inode->kind == ModelKind::kFile) {
                files.push_back(entry.inode);
            }
        }
    }
    return files.empty() ? nullptr : files[random_.below(files.size())];
}

Worker::NameChoice Worker::choose_name() {
    std::vector<ModelRef> directories = load_.model().directories();
    NameChoice choice;
    choice.directory = directories[random_.below(directories.size())];
    auto count = static_cast<uint64_t>(load_.options().names_per_directory);
    choice.name = std::string(1, static_cast<char>('a' + random_.below(count)));
    choice.entry = &choice.directory->names[choice.name];
    return choice;
}

void Worker::begin(const std::string& what) {
    trace(what);
    session_ = files_.session().session();
    load_.saw_session(client_, session_);
}

void Worker::trace(const std::string& what) {
    if (env_.log().enabled(LogLevel::kDebug)) {
        env_.log().write(LogLevel::kDebug, "op " + what);
    }
}

bool Worker::lost() {
    SessionId now = files_.session().session();
    if (now == session_ && !load_.session_is_lost(client_, session_)) {
        return false;
    }
    load_.session_lost(client_, session_);
    load_.saw_session(client_, now);
    return true;
}

bool Worker::explained(const Error& error) {
    if (lost() || (handle_session_ && handle_session_ != session_)) {
        return true;
    }
    // Reported once for each file, maybe long after the session was lost.
    return error.code == Errc::kLostData && load_.lost_before(client_);
}

void Worker::unexpected(const std::string& what, const Error& error) {
    load_.verdict().wrong("client " + std::to_string(client_) + ", " + what + ": " +
                          error.to_string());
}

void Worker::finish(HeldChange& held,
                    const Status& status,
                    const std::vector<Errc>& expected,
                    uint64_t new_ino) {
    std::vector<uint64_t> found(held.change().places.size(), new_ino);
    trace("done " + held.change().what + ": " +
          (status.ok() ? "inode " + std::to_string(new_ino) : status.error().to_string()));
    std::string who = "client " + std::to_string(client_) + ", " + held.change().what;
    if (status.ok()) {
        if (!expected.empty()) {
            load_.verdict().wrong(who + " succeeded; expected " +
                                  std::string(errc_name(expected.front())));
        } else {
            held.settle(1, found);
        }
        return;
    }
    Errc code = status.error().code;
    if (std::find(expected.begin(), expected.end(), code) != expected.end()) {
        held.settle(0, found);
    } else if (!explained(status.error())) {
        std::string wanted = expected.empty() ? "" : std::string(errc_name(expected.front()));
        unexpected(held.change().what + (wanted.empty() ? "" : " (expected " + wanted + ")"),
                   status.error());
    }
    // Otherwise it stays in doubt.
}

}  // namespace kdfs::sim
