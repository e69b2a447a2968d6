#pragma once

#include "kdfs/base/result.h"
#include "tools/arguments.h"

#include <cstdint>
#include <string>

namespace kdfs::tools {

// What `kdfs up` was told when it made a cluster, as STATE/kdfs.json keeps it.
struct ClusterSettings {
    static constexpr uint64_t kNodesMax = 64;
    static constexpr uint64_t kTargetsPerNodeMax = 16;

    uint64_t nodes = 3;
    uint64_t replicas = 2;
    uint64_t targets_per_node = 1;
    // The metadata server's port, storage daemons follow; 0: the system chooses.
    uint64_t port_base = 0;
    // Of each target; 0: no bound but the disk.
    uint64_t capacity_bytes = 0;
    std::string mount;
    // Known after the first start.
    std::string cluster_id;
};

// The directory of a cluster that `kdfs up` runs on this machine:
//   kdfs.json     the settings; its presence makes the directory ours
//   cluster.key   the secret of the cluster, mode 0600
//   lock          held while `up` or `down` works
//   mds/ storage-1/ ...   what the daemons keep; each writes its address to the file `address`
//   log/ run/     one log and one pid file per daemon
// The directory has mode 0700. Nothing in it is removed by `down`.
class StateDir {
public:
    // A new one at `path`. kNotEmpty if something else is there.
    static Result<StateDir> create(const std::string& path, const ClusterSettings& settings);
    // kNotFound if there is nothing of ours at `path`; kMalformed if its settings are damaged.
    static Result<StateDir> open(const std::string& path);

    const std::string& path() const { return path_; }
    const ClusterSettings& settings() const { return settings_; }
    Status save(const ClusterSettings& settings);

    std::string key_file() const { return path_ + "/cluster.key"; }
    std::string data_dir(const std::string& daemon) const { return path_ + "/" + daemon; }
    std::string address_file(const std::string& daemon) const {
        return data_dir(daemon) + "/address";
    }
    std::string log_file(const std::string& daemon) const {
        return path_ + "/log/" + daemon + ".log";
    }
    std::string pid_file(const std::string& daemon) const {
        return path_ + "/run/" + daemon + ".pid";
    }
    // The address a daemon wrote; kNotFound before.
    Result<std::string> address(const std::string& daemon) const;

private:
    StateDir(std::string path, ClusterSettings settings)
        : path_(std::move(path)), settings_(std::move(settings)) {}

    std::string path_;
    ClusterSettings settings_;
};

// Keeps other `kdfs up` and `kdfs down` off a state directory while it lives.
class StateLock {
public:
    // kBusy if another command holds it.
    static Result<StateLock> take(const StateDir& state);
    StateLock(StateLock&& other) noexcept;
    StateLock& operator=(StateLock&&) = delete;
    ~StateLock();

private:
    explicit StateLock(int fd) : fd_(fd) {}
    int fd_;
};

// The state directory that `kdfs COMMAND` is to work on, absolute: --dir, else $KDFS_DIR.
// kInvalidArgument if there is neither.
Result<std::string> state_path(const Arguments& arguments, const std::string& command);

}  // namespace kdfs::tools
