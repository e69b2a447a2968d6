#pragma once

#include "kdfs/base/result.h"
#include "tools/cluster_link.h"
#include "tools/process.h"
#include "tools/state_dir.h"
#include "tools/status_view.h"

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace kdfs::tools {

// The processes of a cluster that runs on this machine under one state directory: "mds",
// "storage-1" ..., "mount". Starts those that do not run, waits until the cluster is ready, stops
// them. Whoever changes something holds the StateLock.
class LocalCluster {
public:
    using Clock = std::chrono::steady_clock;

    // `state` outlives this.
    explicit LocalCluster(StateDir& state) : state_(state) {}

    std::vector<std::string> storage_names() const;
    std::vector<std::string> daemon_names() const;
    // The daemon's process, if it runs.
    std::optional<ProcessId> running(const std::string& daemon) const;
    std::vector<std::string> not_running() const;

    // Waits until those are gone that were killed and have not ended yet: they look as if they ran,
    // and hold their ports and the locks of their directories. Ten seconds at most for each.
    void wait_for_killed() const;

    // Starts what does not run and waits until every chain serves and the mount answers. After a
    // failure everything started by this call is stopped again, and the error holds the part that
    // failed, the last lines of its log, and what to do. A notice says what is not as it should
    // be although the cluster is usable.
    //
    // Storage daemons of a cluster that was up before may fail, if the others serve every chain
    // with the usual number of copies: failed() then has them, each with the text of such an error.
    Status start(std::chrono::milliseconds patience);
    const std::vector<std::string>& notices() const { return notices_; }
    const std::map<std::string, std::string>& failed() const { return failed_; }

    // Stops all daemons: metadata server first, so that it does not record the others' end as
    // failures; `mount` only if it still runs after its file system was unmounted.
    void stop(std::chrono::milliseconds patience);

private:
    Status start_daemons(Clock::time_point deadline);
    // Ends the session that a killed kdfs-fuse of ours left, so that nobody waits for its lease.
    Status end_dead_mount(const std::string& mds);
    Status start_one(const std::string& daemon, std::vector<std::string> arguments);
    // Nothing if the daemon is one of failed().
    Result<std::string> wait_for_address(const std::string& daemon, Clock::time_point deadline);
    Status wait_for_mount(Clock::time_point deadline);
    Status wait_for_storage(Clock::time_point deadline);
    Status wait_for_chains(Clock::time_point deadline);
    // Fails if the cluster cannot do without the daemon and it has ended; see failed().
    Status check_alive(const std::string& daemon);
    Result<std::string> listen_address(const std::string& daemon, uint64_t index) const;
    Status check_cluster_id(const std::string& id);
    // Whether all is served; while `patient`, by all its copies.
    bool is_ready(const StatusView& view, bool patient);
    Error not_ready(const StatusView& view) const;
    Error with_log(const std::string& daemon, const std::string& what) const;
    void stop_group(const std::vector<std::string>& daemons, std::chrono::milliseconds patience);
    void stop_started();

    StateDir& state_;
    std::vector<std::string> started_;
    std::vector<std::string> notices_;
    std::map<std::string, std::string> failed_;
};

// "127.0.0.1:PORT"; kBusy, naming who has it where that can be seen, if the port is taken.
Status check_port_free(const std::string& address);

}  // namespace kdfs::tools
