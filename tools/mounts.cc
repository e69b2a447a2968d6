#include "tools/mounts.h"

#include "tools/files.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <sstream>
#include <thread>

namespace kdfs::tools {

namespace {

constexpr size_t kMountinfoMax = 4 << 20;

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(const std::string& text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 3 < text.size()) {
            out += static_cast<char>(((text[i + 1] - '0') << 6) + ((text[i + 2] - '0') << 3) +
                                     (text[i + 3] - '0'));
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

std::optional<Mount> parse_mount(const std::string& line) {
    std::istringstream in(line);
    std::string skipped;
    Mount mount;
    in >> skipped >> skipped >> skipped >> skipped >> mount.path;
    // Options, then any number of optional fields up to a single dash.
    while (in >> skipped && skipped != "-") {
    }
    in >> mount.type >> mount.source;
    if (!in) {
        return std::nullopt;
    }
    mount.path = unescape(mount.path);
    mount.source = unescape(mount.source);
    return mount;
}

std::string option_value(const std::vector<std::string>& words, const std::string& name) {
    std::string dashed = "--" + name;
    for (size_t i = 0; i < words.size(); ++i) {
        if (words[i] == dashed && i + 1 < words.size()) {
            return words[i + 1];
        }
        if (words[i].starts_with(dashed + "=")) {
            return words[i].substr(dashed.size() + 1);
        }
    }
    return {};
}

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool links_into(const std::string& link, const std::string& folder) {
    Result<std::string> target = read_link(link);
    return target.ok() && path_within(*target, folder);
}

bool uses(pid_t pid, const std::string& folder) {
    std::string proc = "/proc/" + std::to_string(pid);
    for (const char* link : {"/cwd", "/root", "/exe"}) {
        // Everybody's root is "/", which is below no mount but one at "/".
        if (links_into(proc + link, folder)) {
            return true;
        }
    }
    for (const char* list : {"/fd", "/map_files"}) {
        std::string links = proc + list + "/";
        for (const std::string& name : list_directory(links)) {
            if (links_into(links + name, folder)) {
                return true;
            }
        }
    }
    return false;
}

}  // namespace

std::vector<Mount> parse_mounts(const std::string& text) {
    std::vector<Mount> out;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) {
        std::optional<Mount> mount = parse_mount(line);
        if (mount) {
            out.push_back(std::move(*mount));
        }
    }
    return out;
}

std::vector<Mount> all_mounts() {
    Result<std::string> text = read_file("/proc/self/mountinfo", kMountinfoMax);
    return text.ok() ? parse_mounts(*text) : std::vector<Mount>();
}

std::optional<Mount> mount_at(const std::string& path) {
    std::optional<Mount> found;
    for (Mount& mount : all_mounts()) {
        if (mount.path == path) {
            found = std::move(mount);
        }
    }
    return found;
}

std::optional<Mount> mount_holding(const std::string& path) {
    std::optional<Mount> found;
    for (Mount& mount : all_mounts()) {
        bool deeper = !found || mount.path.size() >= found->path.size();
        if (deeper && path_within(path, mount.path)) {
            found = std::move(mount);
        }
    }
    return found;
}

std::vector<MountDaemon> mount_daemons() {
    std::vector<MountDaemon> out;
    for (pid_t pid : all_processes()) {
        std::vector<std::string> words = command_line(pid);
        if (words.empty() ||
            (base_name(words[0]) != "kdfs-fuse" && base_name(words[0]) != "mount.kdfs")) {
            continue;
        }
        std::optional<ProcessId> process = find_process(pid);
        if (process) {
            out.push_back({*process,
                           option_value(words, "mount"),
                           option_value(words, "mds"),
                           option_value(words, "cluster-key")});
        }
    }
    return out;
}

Status probe_mount(const std::string& path, std::chrono::milliseconds patience) {
    pid_t pid = fork();
    if (pid == 0) {
        // The kernel answers stat() of the root from its cache even when the daemon is dead.
        struct statvfs info {};
        _exit(statvfs(path.c_str(), &info) == 0 ? 0 : errno);
    }
    if (pid < 0) {
        return errno_error(errno, "fork for looking at " + path);
    }
    auto deadline = std::chrono::steady_clock::now() + patience;
    int wait_status = 0;
    while (waitpid(pid, &wait_status, WNOHANG) == 0) {
        if (std::chrono::steady_clock::now() >= deadline) {
            kill(pid, SIGKILL);
            // A process that waits for a FUSE answer dies of SIGKILL; one that does not is left.
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            waitpid(pid, nullptr, WNOHANG);
            return Error(Errc::kTimeout, "the file system at " + path + " does not answer");
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    int code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : EIO;
    if (code != 0) {
        return errno_error(code, "look at the file system at " + path);
    }
    return {};
}

Status unmount(const std::string& path, Unmount how) {
    if (umount2(path.c_str(), how == Unmount::kLazy ? MNT_DETACH : 0) == 0) {
        return {};
    }
    int code = errno;
    if (code == EPERM) {
        std::string output;
        std::vector<std::string> words = {"fusermount3", "-q", "-u"};
        if (how == Unmount::kLazy) {
            words.emplace_back("-z");
        }
        words.push_back(path);
        Result<int> exit = run_program(words, output);
        if (exit.ok() && *exit == 0) {
            return {};
        }
        code = users_of(path, 1).empty() ? EPERM : EBUSY;
    }
    if (code == EBUSY) {
        return Error(Errc::kBusy, path + " is in use");
    }
    return errno_error(code, "unmount " + path);
}

std::vector<std::string> users_of(const std::string& path, size_t most) {
    std::vector<std::string> out;
    for (pid_t pid : all_processes()) {
        if (out.size() == most) {
            break;
        }
        if (!uses(pid, path)) {
            continue;
        }
        std::vector<std::string> words = command_line(pid);
        std::string name = words.empty() ? "process" : base_name(words[0]);
        out.push_back(name + " (" + std::to_string(pid) + ")");
    }
    return out;
}

}  // namespace kdfs::tools
