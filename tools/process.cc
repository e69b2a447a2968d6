#include "tools/process.h"

#include "tools/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <thread>

namespace kdfs::tools {

namespace {

constexpr size_t kProcFileMax = 64 * 1024;

std::string boot_id() {
    Result<std::string> text = read_file("/proc/sys/kernel/random/boot_id", 128);
    std::string id = text.ok() ? *text : std::string("unknown");
    while (!id.empty() && id.back() == '\n') {
        id.pop_back();
    }
    return id;
}

struct Stat {
    char state = '?';
    uint64_t flags = 0;
    uint64_t threads = 0;
    uint64_t start_ticks = 0;
    uint64_t signals_pending = 0;

    bool zombie() const { return state == 'Z' || state == 'X'; }
    // Its last thread closes what it has open; the first one may be a zombie long before.
    bool gone() const { return zombie() && threads <= 1; }
    bool ending() const {
        constexpr uint64_t kExiting = 0x4;  // PF_EXITING of the kernel
        constexpr uint64_t kKilled = uint64_t{1} << (SIGKILL - 1);
        return zombie() || (flags & kExiting) != 0 || (signals_pending & kKilled) != 0;
    }
};

std::optional<Stat> process_stat(pid_t pid) {
    Result<std::string> text = read_file("/proc/" + std::to_string(pid) + "/stat", kProcFileMax);
    if (!text.ok()) {
        return std::nullopt;
    }
    // The name stands in brackets and may hold anything, also brackets.
    size_t name_end = text->rfind(')');
    if (name_end == std::string::npos) {
        return std::nullopt;
    }
    std::istringstream fields(text->substr(name_end + 1));
    Stat out;
    fields >> out.state;
    // The fields as proc(5) numbers them; the state was the third.
    int at = 3;
    auto read_field = [&fields, &at](int number, uint64_t& value) {
        std::string skipped;
        for (++at; at < number; ++at) {
            fields >> skipped;
        }
        fields >> value;
    };
    read_field(9, out.flags);
    read_field(20, out.threads);
    read_field(22, out.start_ticks);
    read_field(31, out.signals_pending);
    if (!fields) {
        return std::nullopt;
    }
    return out;
}

// In the child: nothing here may allocate, since another thread may have held a lock at fork.
[[noreturn]] void become_daemon(int log_fd, int error_fd, char** words) {
    setsid();
    // A daemon keeps no directory busy.
    if (chdir("/") != 0) {
        _exit(126);
    }
    int null_fd = open("/dev/null", O_RDONLY);
    dup2(null_fd, STDIN_FILENO);
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    signal(SIGPIPE, SIG_DFL);
    // Everything else closes itself at exec, so that no daemon holds another's files.
    syscall(SYS_close_range, 3U, ~0U, 1U << 2 /* CLOSE_RANGE_CLOEXEC */);
    execv(words[0], words);
    int code = errno;
    ssize_t written = write(error_fd, &code, sizeof code);
    _exit(written == sizeof code ? 127 : 126);
}

std::vector<char*> exec_words(std::vector<std::string>& words) {
    std::vector<char*> out;
    out.reserve(words.size() + 1);
    for (std::string& word : words) {
        out.push_back(word.data());
    }
    out.push_back(nullptr);
    return out;
}

int exit_code(int wait_status) {
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

}  // namespace

std::optional<ProcessId> find_process(pid_t pid) {
    std::optional<Stat> stat = process_stat(pid);
    if (!stat || stat->gone()) {
        return std::nullopt;
    }
    return ProcessId{pid, stat->start_ticks, boot_id()};
}

bool alive(const ProcessId& process) {
    std::optional<ProcessId> now = find_process(process.pid);
    return now && *now == process;
}

bool ending(const ProcessId& process) {
    std::optional<Stat> stat = process_stat(process.pid);
    return stat && stat->ending() && alive(process);
}

std::vector<std::string> command_line(pid_t pid) {
    Result<std::string> text = read_file("/proc/" + std::to_string(pid) + "/cmdline", kProcFileMax);
    std::vector<std::string> words;
    if (!text.ok()) {
        return words;
    }
    std::istringstream in(*text);
    for (std::string word; std::getline(in, word, '\0');) {
        words.push_back(word);
    }
    return words;
}

std::vector<pid_t> all_processes() {
    std::vector<pid_t> out;
    for (const std::string& name : list_directory("/proc")) {
        pid_t pid = 0;
        auto [stop, code] = std::from_chars(name.data(), name.data() + name.size(), pid);
        if (code == std::errc() && stop == name.data() + name.size()) {
            out.push_back(pid);
        }
    }
    std::sort(out.begin(), out.end());
    return out;
}

Status write_pid_file(const std::string& path, const ProcessId& process) {
    std::string line = std::to_string(process.pid) + " " + std::to_string(process.start_ticks) +
                       " " + process.boot_id + "\n";
    return write_file(path, line, 0644);
}

Result<std::optional<ProcessId>> read_pid_file(const std::string& path) {
    Result<std::string> text = read_file(path, 4096);
    if (!text.ok()) {
        if (text.error().code == Errc::kNotFound) {
            return std::optional<ProcessId>();
        }
        return text.error();
    }
    std::istringstream in(*text);
    ProcessId process;
    in >> process.pid >> process.start_ticks >> process.boot_id;
    if (!in || process.pid <= 1) {
        return Error(Errc::kMalformed,
                     path + " is not a pid file of kdfs; remove it if no daemon runs there");
    }
    return std::optional<ProcessId>(process);
}

Result<ProcessId> start_daemon(const DaemonSpec& spec) {
    int log_fd = open(spec.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log_fd < 0) {
        return errno_error(errno, "open log file " + spec.log_path);
    }
    std::array<int, 2> pipe_fds{};
    if (pipe2(pipe_fds.data(), O_CLOEXEC) != 0) {
        int code = errno;
        close(log_fd);
        return errno_error(code, "pipe for starting " + spec.program);
    }
    std::vector<std::string> words = {spec.program};
    words.insert(words.end(), spec.arguments.begin(), spec.arguments.end());
    std::vector<char*> argv = exec_words(words);
    pid_t pid = fork();
    if (pid == 0) {
        become_daemon(log_fd, pipe_fds[1], argv.data());
    }
    int fork_errno = errno;
    close(log_fd);
    close(pipe_fds[1]);
    // Closed by exec without a byte, or brings the errno of exec.
    int exec_errno = 0;
    ssize_t got = 0;
    if (pid > 0) {
        do {
            got = read(pipe_fds[0], &exec_errno, sizeof exec_errno);
        } while (got < 0 && errno == EINTR);
    }
    close(pipe_fds[0]);
    if (pid < 0) {
        return errno_error(fork_errno, "fork for " + spec.program);
    }
    if (got == sizeof exec_errno) {
        waitpid(pid, nullptr, 0);
        return errno_error(exec_errno, "execute " + spec.program);
    }
    std::optional<ProcessId> process = find_process(pid);
    if (!process) {
        waitpid(pid, nullptr, 0);
        return Error(Errc::kIo, spec.program + " ended as soon as it was started");
    }
    return *process;
}

bool wait_until_gone(const ProcessId& process, std::chrono::milliseconds patience) {
    auto deadline = std::chrono::steady_clock::now() + patience;
    for (;;) {
        // A child of ours stays a zombie until it is waited for; of others this is no error either.
        waitpid(process.pid, nullptr, WNOHANG);
        if (!alive(process)) {
            return true;
        }
        if (std::chrono::steady_clock::now() >= deadline) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

bool stop_process(const ProcessId& process, std::chrono::milliseconds patience) {
    if (!alive(process)) {
        waitpid(process.pid, nullptr, WNOHANG);
        return true;
    }
    kill(process.pid, SIGTERM);
    if (wait_until_gone(process, patience)) {
        return true;
    }
    if (alive(process)) {
        kill(process.pid, SIGKILL);
    }
    wait_until_gone(process, std::chrono::seconds(10));
    return false;
}

Result<int> run_program(const std::vector<std::string>& words, std::string& output) {
    std::array<int, 2> pipe_fds{};
    if (pipe2(pipe_fds.data(), O_CLOEXEC) != 0) {
        return errno_error(errno, "pipe for " + words[0]);
    }
    std::vector<std::string> copy = words;
    std::vector<char*> argv = exec_words(copy);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(pipe_fds[1], STDOUT_FILENO);
        dup2(pipe_fds[1], STDERR_FILENO);
        execvp(argv[0], argv.data());
        _exit(127);
    }
    int fork_errno = errno;
    close(pipe_fds[1]);
    if (pid < 0) {
        close(pipe_fds[0]);
        return errno_error(fork_errno, "fork for " + words[0]);
    }
    std::array<char, 4096> buffer{};
    for (;;) {
        ssize_t got = read(pipe_fds[0], buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        if (output.size() < kProcFileMax) {
            output.append(buffer.data(), static_cast<size_t>(got));
        }
    }
    close(pipe_fds[0]);
    int wait_status = 0;
    while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
    }
    return exit_code(wait_status);
}

std::vector<std::string> last_lines(const std::string& path, size_t lines_max) {
    constexpr size_t kTailBytes = 16 * 1024;
    Result<std::string> text = read_tail(path, kTailBytes);
    std::vector<std::string> lines;
    if (!text.ok()) {
        return lines;
    }
    std::istringstream in(*text);
    for (std::string line; std::getline(in, line);) {
        if (!line.empty()) {
            lines.push_back(line);
        }
    }
    if (lines.size() > lines_max) {
        lines.erase(lines.begin(), lines.end() - static_cast<ptrdiff_t>(lines_max));
    }
    return lines;
}

Result<std::string> find_program(const std::string& name) {
    std::string looked;
    std::vector<std::string> folders;
    Result<std::string> self = read_link("/proc/self/exe");
    if (self.ok()) {
        folders.push_back(self->substr(0, self->rfind('/')));
    }
    const char* path = std::getenv("PATH");
    std::istringstream in(path == nullptr ? "/usr/sbin:/usr/bin" : path);
    for (std::string folder; std::getline(in, folder, ':');) {
        folders.push_back(folder);
    }
    for (const std::string& folder : folders) {
        std::string candidate = absolute_path(folder) + "/" + name;
        if (access(candidate.c_str(), X_OK) == 0) {
            return candidate;
        }
        looked = looked.empty() ? folder : looked;
    }
    return Error(Errc::kNotFound,
                 "the program " + name + " is neither in " + looked +
                     " nor in PATH; build it (cmake --build --preset release) or install kdfs");
}

}  // namespace kdfs::tools
