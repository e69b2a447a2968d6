#pragma once

#include "kdfs/rt/reactor.h"
#include "kdfs/rt/sync.h"
#include "kdfs/rt/task.h"

#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

namespace kdfs::contract {

// A directory that goes with its object.
class TemporaryDirectory {
public:
    TemporaryDirectory() {
        std::string name = (std::filesystem::temp_directory_path() / "kdfs-test-XXXXXX").string();
        KDFS_CHECK(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~TemporaryDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

// A world for the contract suites on the real event loop.
class RealWorld {
public:
    RealWorld() {
        auto reactor = Reactor::create();
        KDFS_CHECK(reactor.ok());
        reactor_ = std::move(*reactor);
    }
    Reactor& reactor() { return *reactor_; }
    Scheduler& scheduler() { return *reactor_; }
    void run(Task<void> task) { run_task<bool>(*reactor_, then_true(std::move(task))); }
    void run_until(Event& done) { run(wait_for(done)); }

private:
    static Task<bool> then_true(Task<void> task) {
        co_await std::move(task);
        co_return true;
    }
    static Task<void> wait_for(Event& done) { co_await done.wait(); }

    std::unique_ptr<Reactor> reactor_;
};

}  // namespace kdfs::contract
