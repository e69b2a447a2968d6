#include "client/daemonize.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace kdfs::client {

Result<Daemonize> Daemonize::fork_and_wait() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return errno_error(errno, "make a pipe");
    }
    pid_t child = fork();
    if (child < 0) {
        return errno_error(errno, "go into the background");
    }
    if (child == 0) {
        close(ends[0]);
        Daemonize out;
        out.to_parent_ = ends[1];
        return out;
    }
    close(ends[1]);
    char word = 0;
    ssize_t got = 0;
    do {
        got = read(ends[0], &word, 1);
    } while (got < 0 && errno == EINTR);
    if (got == 1) {
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    _exit(WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : 1);
}

void Daemonize::done() {
    if (to_parent_ < 0) {
        return;
    }
    setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        close(null);
    }
    // The terminal's directory may be unmounted.
    if (chdir("/") != 0) {
        return;
    }
    char word = 1;
    ssize_t written = write(to_parent_, &word, 1);
    (void)written;
    close(std::exchange(to_parent_, -1));
}

}  // namespace kdfs::client
