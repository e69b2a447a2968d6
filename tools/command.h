#pragma once

#include "tools/arguments.h"

#include <ostream>
#include <string>
#include <vector>

namespace kdfs::tools {

// What a subcommand leaves for the shell.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
// `kdfs status`: the cluster is degraded (1), critical (2) or does not answer (3).
inline constexpr int kExitCritical = 2;
inline constexpr int kExitUnreachable = 3;
// The command line was wrong; nothing was done.
inline constexpr int kExitUsage = 64;

// Where a subcommand writes: results to `out`, sentences for people to `err`.
struct Console {
    std::ostream& out;
    std::ostream& err;
    bool err_is_terminal = false;

    // "kdfs: " and the sentence, on `err`. Gives the exit code that fits.
    int fail(const Error& error);
};

// A subcommand: what it takes, and what it does.
struct Command {
    CommandSpec spec;
    int (*run)(const Arguments& arguments, Console& console) = nullptr;
};

// Each in the file of its name.
Command up_command();
Command down_command();
Command status_command();
Command where_command();
Command policy_command();
Command doctor_command();
Command fsck_command();
Command scrub_command();
// In the order in which the help shows them.
std::vector<Command> all_commands();

// Runs the program `kdfs` with its words, without the program's own name.
int run_kdfs(const std::vector<std::string>& words, Console& console);
// The manual page kdfs(1), made from the same specs as the help.
std::string manual_page();

}  // namespace kdfs::tools
