#pragma once

#include "kdfs/base/result.h"

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace kdfs::tools {

// One process, named so that a later process with the same number is never taken for it: by its
// number, its start time (ticks since boot) and the boot it lived in.
struct ProcessId {
    pid_t pid = 0;
    uint64_t start_ticks = 0;
    std::string boot_id;

    bool operator==(const ProcessId&) const = default;
};

// The process that has this number now; nothing if there is none, or only a zombie. One that ends
// is there until its last thread has closed its files and sockets.
std::optional<ProcessId> find_process(pid_t pid);
bool alive(const ProcessId& process);
// True if it was killed or exits and is not gone yet: it does nothing more, but may still have its
// port and the lock of its directory.
bool ending(const ProcessId& process);
// Its command line in words; empty if it is gone.
std::vector<std::string> command_line(pid_t pid);
// The numbers of all processes of this machine that we may see.
std::vector<pid_t> all_processes();

// A pid file: written whole or not at all, one line "pid start_ticks boot_id".
Status write_pid_file(const std::string& path, const ProcessId& process);
// Nothing if the file is absent; kMalformed, naming it, if it is not ours.
Result<std::optional<ProcessId>> read_pid_file(const std::string& path);

struct DaemonSpec {
    std::string program;  // path
    std::vector<std::string> arguments;
    std::string log_path;  // appended to: stdout and stderr
};
// Starts a program in a session of its own, with no descriptors but its log. The error says why it
// could not be executed.
Result<ProcessId> start_daemon(const DaemonSpec& spec);

// Waits until the process is gone: true, or false after `patience`. Also collects it if it is our
// child.
bool wait_until_gone(const ProcessId& process, std::chrono::milliseconds patience);
// SIGTERM, then SIGKILL after `patience`. True if it went by itself.
bool stop_process(const ProcessId& process, std::chrono::milliseconds patience);

// Runs `program` to its end; its exit code, or 128 + signal. Its stdout and stderr go to `output`.
Result<int> run_program(const std::vector<std::string>& words, std::string& output);

// The last lines of a file, `lines_max` at most, without those that are empty.
std::vector<std::string> last_lines(const std::string& path, size_t lines_max);
// The path of a program of kdfs: beside the running program, else in PATH. kNotFound says where it
// was looked for.
Result<std::string> find_program(const std::string& name);

}  // namespace kdfs::tools
