#pragma once

#include "kdfs/base/result.h"

namespace kdfs::client {

// Goes into the background while the caller in the foreground waits to hear how it went. Before
// any thread is started.
class Daemonize {
public:
    // Forks. The parent does not return: it exits with 0 when the child called done(), with the
    // child's status if that ends before; so errors are the child's to print.
    static Result<Daemonize> fork_and_wait();
    Daemonize() = default;
    // The service works: lets the parent go, leaves the terminal.
    void done();

private:
    int to_parent_ = -1;
};

}  // namespace kdfs::client
