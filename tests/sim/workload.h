#pragma once

#include "client/file_client.h"
#include "kdfs/base/random.h"
#include "kdfs/rt/env.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/tree_model.h"
#include "tests/sim/verdict.h"

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace kdfs::sim {

// What the workload of one seed is like.
struct WorkloadOptions {
    int workers_per_client = 2;
    int names_per_directory = 8;
    size_t directories_max = 6;
    uint64_t file_bytes_max = 300 * KiB;
    uint64_t write_bytes_max = 100 * KiB;
    // How often, of a hundred operations.
    uint64_t data_percent = 50;
    uint64_t fsync_percent = 20;
    uint64_t unaligned_percent = 30;
    Duration think_time_max = std::chrono::milliseconds(300);
    // Of a hundred uses of files: all write one file in strides, each its own, and sync it.
    uint64_t checkpoint_percent = 0;

    // Kinds of work that only the full mix has: storms of renames, checkpoints, many fsyncs.
    void draw_more(Random& random);
    // In some runs everybody is at the same few files all the time.
    void draw_harsh(Random& random);
};

// Mixed operations of several clients on one tree, each checked against the model. Shared by all
// clients and outlives them; the workers are coroutines on the clients' nodes and die with them.
class Workload {
public:
    // After this nothing that a dead or fenced client sent can still take effect.
    static constexpr Duration kSettleTime = std::chrono::seconds(40);

    Workload(SimClock& clock, Verdict& verdict, Random random, WorkloadOptions options);

    // True if the servers have given up this session, or never knew it. While the metadata server
    // is down, what the storage daemons refuse counts.
    void set_fenced(std::function<bool(SessionId)> fenced) { fenced_ = std::move(fenced); }

    // How often a chain lost what was only committed, as far as anybody who runs has heard.
    void set_losses(std::function<uint64_t()> losses) { losses_ = std::move(losses); }

    // Makes the workers' flows for a client that was started: to be run on its node.
    std::vector<Task<void>> start_client(uint64_t client, client::FileClient& files, Env& env);
    // The client's process is gone.
    void client_gone(uint64_t client);
    // No new operations from now on.
    void stop() { stopping_ = true; }
    // Workers are to be started again.
    void resume() { stopping_ = false; }
    // Every operation has ended, and all their outcomes are known or were looked up.
    bool idle() const { return running_ == 0; }
    uint64_t operations() const { return operations_; }

    // Looks up the outcomes that nobody knows; then compares the whole tree. Run when idle.
    Task<void> verify(uint64_t client, client::FileClient* files, Env* env);
    // After a loss of power everywhere: what was not synced may be gone.
    void power_lost();

    // A storage node lost power: what nobody synced there may be gone.
    // With `only_copy` there was no other replica.
    void note_storage_power_cut(bool only_copy);
    void set_options(WorkloadOptions options) { options_ = options; }
    bool storage_lost_power() const { return storage_lost_power_; }
    // Any write may be refused for want of space, also after it was acknowledged, up to its fsync.
    void set_tight_space(bool tight) { tight_space_ = tight; }
    bool tight_space() const { return tight_space_; }

    TreeModel& model() { return model_; }
    Verdict& verdict() { return verdict_; }
    const WorkloadOptions& options() const { return options_; }
    TimePoint now() const { return clock_.now(); }
    bool stopping() const { return stopping_ || verdict_.failed(); }

    // For workers.
    void begin_operation() {
        ++running_;
        ++operations_;
    }
    void end_operation() { --running_; }
    void check(std::optional<std::string> wrong, const std::string& what, ModelInode* file);
    // Asks of every session whether it is fenced, for who remembers it.
    void ask_sessions() const;
    // Marks what clients lost that are fenced by now; true if there was one that was not known.
    bool notice_lost_sessions();
    // Marks what is at risk if a chain lost something since the last look; true if one did.
    bool notice_losses();
    // `client` noticed that its session is gone.
    void session_lost(uint64_t client, SessionId session);
    // The client's session is this now: the one it had before, if another, is lost.
    void saw_session(uint64_t client, SessionId session);
    bool session_is_lost(uint64_t client, SessionId session) const;
    bool lost_before(uint64_t client) const { return clients_that_lost_.contains(client); }

    // What `client` lost is over a while from now.
    void settle_later(uint64_t client) { settling_.push_back({now() + kSettleTime, client}); }
    // What nobody sent any more for long enough is over.
    void settle_due();

private:
    struct Settling {
        TimePoint when;
        uint64_t client;
    };

    SimClock& clock_;
    Verdict& verdict_;
    Random random_;
    WorkloadOptions options_;
    TreeModel model_;
    std::function<bool(SessionId)> fenced_;
    std::function<uint64_t()> losses_;
    uint64_t losses_noticed_ = 0;
    std::map<uint64_t, SessionId> sessions_;
    std::set<SessionId> lost_sessions_;
    std::set<uint64_t> clients_that_lost_;
    std::list<Settling> settling_;
    bool stopping_ = false;
    bool storage_lost_power_ = false;
    bool tight_space_ = false;
    uint64_t running_ = 0;
    uint64_t operations_ = 0;
};

}  // namespace kdfs::sim
