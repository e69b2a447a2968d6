#include "tools/command.h"

#include <unistd.h>

#include <csignal>
#include <iostream>

int main(int argc, char** argv) {
    // A reader that went away (`kdfs status | head`) ends the output, not the program's cleanup.
    std::signal(SIGPIPE, SIG_IGN);
    std::vector<std::string> words(argv + 1, argv + argc);
    kdfs::tools::Console console{std::cout, std::cerr, isatty(STDERR_FILENO) == 1};
    int code = kdfs::tools::run_kdfs(words, console);
    std::cout.flush();
    return code;
}
