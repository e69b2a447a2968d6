#pragma once

#include "client/file_client.h"
#include "kdfs/base/random.h"
#include "kdfs/rt/env.h"
#include "tests/sim/workload.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kdfs::sim {

class HeldChange;

// One stream of operations of one client. Lives in the frame of run().
class Worker {
public:
    Worker(Workload& load, uint64_t client, client::FileClient& files, Env& env, Random random)
        : load_(load), client_(client), files_(files), env_(env), random_(random) {}

    static Task<void> run(std::unique_ptr<Worker> self);

    // Looks up what became of operations nobody knows the outcome of; all that began before.
    Task<void> resolve_doubts(TimePoint before);
    // Compares everything with the model.
    Task<void> verify_tree();

private:
    struct NameChoice {
        ModelRef directory;
        std::string name;
        ModelName* entry = nullptr;
    };

    // worker_names.cc
    Task<void> change_names();
    Task<void> make_directory();
    Task<void> make_link();
    Task<void> unlink();
    Task<void> remove_directory();
    Task<void> rename();
    // Those that the rename may fail with, by what the model has now; empty: it must succeed.
    static std::vector<Errc> rename_errors(const NameChoice& from,
                                           const NameChoice& to,
                                           uint32_t flags);
    Task<void> rename_to(NameChoice from, NameChoice to);
    void describe_rename(Change& change, const NameChoice& from, const NameChoice& to, bool swap);
    Task<void> look();
    Task<void> look_up(NameChoice choice);
    Change change_of(const NameChoice& choice, std::string what) const;
    Task<void> make(NameChoice choice, ModelKind kind);
    Task<void> after_create(HeldChange* held,
                            Result<client::Opened> opened,
                            std::vector<Errc> expected);
    Task<void> read_directory(ModelRef directory);
    Task<bool> resolve_one(HeldChange* held);
    void settle_by(HeldChange& held, const std::vector<uint64_t>& found);
    Task<Result<std::vector<std::string>>> list_all(InodeId directory);
    Task<Result<uint64_t>> find(InodeId directory, std::string name);
    Task<void> verify_directory(ModelRef directory);

    // worker_files.cc
    Task<void> use_file(ModelRef file);
    Task<void> some_io(ModelRef file, client::OpenId id, bool write);
    Task<void> write(ModelRef file, client::OpenId id);
    Task<void> write_at(ModelRef file, client::OpenId id, uint64_t offset, uint64_t length);
    Task<void> checkpoint(ModelRef file, client::OpenId id);
    ModelRef shared_file();
    Task<void> read(ModelRef file, client::OpenId id, uint64_t offset, uint64_t length);
    Task<bool> fsync(ModelRef file, client::OpenId id);
    Task<void> truncate(ModelRef file);
    Task<void> get_attributes(ModelRef inode);
    Task<void> verify_file(ModelRef file);

    NameChoice choose_name();
    ModelRef choose_file();
    // Notes the session before an operation; afterwards an error is explained by its loss or wrong.
    void begin(const std::string& what);
    void trace(const std::string& what);
    bool explained(const Error& error);
    // The error says that there is no space, in a run where that may be: what this client wrote to
    // the file and did not sync may be gone.
    bool refused(ModelInode& file, const Error& error);
    // True if the session was lost while the operation ran.
    bool lost();
    // The operation failed with something no fault explains.
    void unexpected(const std::string& what, const Error& error);
    // Settles the change by the operation's result. It must fail with one of `expected`; must not
    // fail if there is none.
    void finish(HeldChange& held,
                const Status& status,
                const std::vector<Errc>& expected,
                uint64_t new_ino);

    Workload& load_;
    uint64_t client_;
    client::FileClient& files_;
    Env& env_;
    Random random_;
    SessionId session_;
    // When the file in use was opened.
    SessionId handle_session_;
};

// Keeps hold of what an operation changes; if it is destroyed before the outcome is known, the
// change becomes a doubt.
class HeldChange {
public:
    HeldChange(Workload& load, Change change) : load_(load), change_(std::move(change)) {
        held_ = load_.model().hold(change_);
    }
    // Takes over what is held already.
    struct Held {};
    HeldChange(Workload& load, Change change, Held)
        : load_(load), change_(std::move(change)), held_(true) {}
    HeldChange(const HeldChange&) = delete;
    HeldChange& operator=(const HeldChange&) = delete;
    ~HeldChange() {
        if (held_) {
            load_.model().doubt(std::move(change_), load_.now());
        }
    }
    bool held() const { return held_; }
    Change& change() { return change_; }
    void settle(size_t outcome, const std::vector<uint64_t>& found) {
        held_ = false;
        load_.model().settle(change_, outcome, found);
    }

private:
    Workload& load_;
    Change change_;
    bool held_ = false;
};

}  // namespace kdfs::sim
