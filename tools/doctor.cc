#include "tools/doctor.h"

#include "tools/cluster_choice.h"
#include "tools/command.h"
#include "tools/files.h"
#include "tools/local_cluster.h"
#include "tools/process.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace kdfs::tools {

namespace {

using Grade = Finding::Grade;

constexpr uint64_t kOpenFilesWanted = 4096;
constexpr uint64_t kMemoryLockWanted = 8 * MiB;
constexpr uint64_t kSpaceMin = 1 * GiB;
constexpr uint64_t kSpaceWanted = 10 * GiB;
// Before this day the clock was certainly never set: 2026-01-01.
constexpr time_t kClockMin = 1767225600;

std::string first_word_with_digit(const std::string& text) {
    std::string word;
    for (char c : text + " ") {
        bool inside = std::isdigit(static_cast<unsigned char>(c)) != 0 || c == '.';
        if (inside) {
            word += c;
        } else if (word.size() > 1 && word.find('.') != std::string::npos) {
            return word;
        } else {
            word.clear();
        }
    }
    return {};
}

std::string trimmed(std::string text) {
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
        text.pop_back();
    }
    return text;
}

Finding check_programs() {
    std::string missing;
    for (const char* name : {"kdfs-mds", "kdfs-storage", "kdfs-fuse"}) {
        if (!find_program(name).ok()) {
            missing += (missing.empty() ? "" : ", ") + std::string(name);
        }
    }
    if (!missing.empty()) {
        return {"programs",
                Grade::kFail,
                missing + " not found beside kdfs or in PATH",
                "build them: cmake --preset release && cmake --build --preset release"};
    }
    return {"programs", Grade::kOk, "kdfs-mds, kdfs-storage and kdfs-fuse found", ""};
}

Finding check_fusermount() {
    std::string output;
    Result<int> code = run_program({"fusermount3", "--version"}, output);
    bool found = code.ok() && *code == 0;
    if (found) {
        return {"fusermount3",
                Grade::kOk,
                "fusermount3 " + first_word_with_digit(output) + " is there",
                ""};
    }
    return {"fusermount3",
            geteuid() == 0 ? Grade::kWarn : Grade::kFail,
            "fusermount3 is missing; without it only root can mount",
            "apt-get install fuse3"};
}

Finding check_libfuse() {
    Result<std::string> program = find_program("kdfs-fuse");
    std::string output;
    if (program.ok()) {
        Result<int> code = run_program({*program, "--version"}, output);
        if (!code.ok() || *code != 0) {
            output.clear();
        }
    }
    size_t at = output.find("libfuse");
    if (at == std::string::npos) {
        return {"libfuse", Grade::kWarn, "the version kdfs-fuse uses is not known", ""};
    }
    std::string version = first_word_with_digit(output.substr(at));
    int major = 0;
    int minor = 0;
    if (std::sscanf(version.c_str(), "%d.%d", &major, &minor) == 2 &&
        (major > 3 || (major == 3 && minor >= 18))) {
        return {"libfuse", Grade::kOk, "kdfs-fuse uses libfuse " + version, ""};
    }
    return {"libfuse",
            Grade::kWarn,
            "kdfs-fuse uses libfuse " + version + "; from 3.18 on it is faster",
            "run tools/setup_libfuse.sh as root, then build again"};
}

Finding limit_finding(const std::string& subject,
                      int resource,
                      uint64_t wanted,
                      const std::string& unit) {
    rlimit limit{};
    if (getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0) {
        return {subject, Grade::kWarn, std::string("cannot be read: ") + std::strerror(errno), ""};
    }
    std::string value =
        limit.rlim_max == RLIM_INFINITY ? "unlimited" : std::to_string(limit.rlim_max);
    if (limit.rlim_max >= wanted) {
        return {subject, Grade::kOk, "up to " + value + " " + unit, ""};
    }
    return {subject,
            Grade::kWarn,
            "only " + value + " " + unit + " allowed",
            "raise it to " + std::to_string(wanted) +
                " or more (ulimit, /etc/security/limits.conf, or the container's settings)"};
}

Finding check_ports(uint64_t port_base) {
    std::string what = "127.0.0.1 can be listened on";
    uint64_t count = port_base == 0 ? 1 : ClusterSettings().nodes + 1;
    for (uint64_t i = 0; i < count; ++i) {
        uint64_t port = port_base == 0 ? 0 : port_base + i;
        Status free = check_port_free("127.0.0.1:" + std::to_string(port));
        if (!free.ok()) {
            return {"ports", Grade::kFail, free.error().detail, "give kdfs up another --port"};
        }
    }
    if (port_base != 0) {
        what = "ports " + std::to_string(port_base) + " to " +
               std::to_string(port_base + count - 1) + " are free";
    }
    return {"ports", Grade::kOk, what, ""};
}

Finding check_clock() {
    if (std::time(nullptr) < kClockMin) {
        return {"clock", Grade::kFail, "the clock was never set", "set it: date -s, or chrony"};
    }
    timex state{};
    int code = adjtimex(&state);
    if (code == TIME_ERROR || (state.status & STA_UNSYNC) != 0) {
        return {"clock",
                Grade::kWarn,
                "the clock is not kept in step with others; it sets file times only",
                "on clusters of several machines: apt-get install chrony"};
    }
    return {"clock", Grade::kOk, "kept in step with others", ""};
}

const char* grade_name(Grade grade) {
    switch (grade) {
        case Grade::kOk:
            return "ok";
        case Grade::kWarn:
            return "warn";
        case Grade::kFail:
            return "fail";
    }
    return "?";
}

CommandSpec doctor_spec() {
    CommandSpec spec;
    spec.name = "doctor";
    spec.summary = "Check whether this machine can run kdfs, and how well";
    spec.details =
        "Looks at the programs, FUSE, io_uring, limits, ports, clock and free space. It changes "
        "nothing. The exit code is 1 if something must be mended first.";
    spec.options = {{"dir",
                     "STATE",
                     "look at the space where this directory is or will be "
                     "(default: $KDFS_DIR, else /var/tmp)"},
                    {"port", "BASE", "look whether the ports from BASE on are free"},
                    {"json", "", "print one JSON object"}};
    spec.examples = {"kdfs doctor"};
    return spec;
}

void print_text(const std::vector<Finding>& findings, Console& console) {
    for (const Finding& finding : findings) {
        std::string head = grade_name(finding.grade);
        head.resize(6, ' ');
        head += finding.subject;
        head.resize(26, ' ');
        console.out << head << " " << finding.what << "\n";
        if (!finding.advice.empty()) {
            console.out << std::string(27, ' ') << "-> " << wrapped(finding.advice, 30) << "\n";
        }
    }
}

void print_json(const std::vector<Finding>& findings, bool failed, Console& console) {
    nlohmann::json out;
    out["ok"] = !failed;
    out["checks"] = nlohmann::json::array();
    for (const Finding& finding : findings) {
        nlohmann::json one;
        one["subject"] = finding.subject;
        one["grade"] = grade_name(finding.grade);
        one["what"] = finding.what;
        one["advice"] = finding.advice;
        out["checks"].push_back(one);
    }
    console.out << out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

int doctor(const Arguments& arguments, Console& console) {
    DoctorPaths paths;
    Result<std::string> dir = state_path(arguments, "doctor");
    if (dir.ok()) {
        paths.space = *dir;
    }
    Result<uint64_t> port = arguments.number("port", 0, {1024, UINT16_MAX - 64});
    if (!port.ok()) {
        return console.fail(port.error());
    }
    std::vector<Finding> findings = examine_machine(paths, *port);
    bool failed = false;
    for (const Finding& finding : findings) {
        failed = failed || finding.grade == Grade::kFail;
    }
    if (arguments.has("json")) {
        print_json(findings, failed, console);
    } else {
        print_text(findings, console);
    }
    if (failed) {
        console.err << "kdfs: something above must be mended before kdfs can run here\n";
    }
    return failed ? kExitFailed : kExitOk;
}

}  // namespace

Finding check_fuse_device(const DoctorPaths& paths) {
    int fd = open(paths.fuse_device.c_str(), O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return {"FUSE device", Grade::kOk, paths.fuse_device + " can be opened", ""};
    }
    int code = errno;
    std::string advice =
        code == ENOENT ? "load it: modprobe fuse; in a container: --device /dev/fuse"
                       : "in a container: --device /dev/fuse --cap-add SYS_ADMIN; else check its "
                         "permissions (chmod 666 " +
                             paths.fuse_device + ")";
    return {"FUSE device",
            Grade::kFail,
            paths.fuse_device + " cannot be opened: " + std::strerror(code),
            advice};
}

Finding check_fuse_uring(const DoctorPaths& paths) {
    Result<std::string> text = read_file(paths.fuse_uring, 64);
    if (!text.ok()) {
        return {"FUSE over io_uring",
                Grade::kWarn,
                "this kernel does not have it (Linux 6.14 and later do); kdfs uses /dev/fuse",
                ""};
    }
    if (trimmed(*text) == "Y" || trimmed(*text) == "1") {
        return {"FUSE over io_uring", Grade::kOk, "switched on in the kernel", ""};
    }
    return {"FUSE over io_uring",
            Grade::kWarn,
            "switched off in the kernel; with it small requests cost less and large ones more",
            "as root: echo Y > " + paths.fuse_uring +
                "; for good: echo 'options fuse enable_uring=1' > /etc/modprobe.d/kdfs.conf (fuse "
                "in the kernel itself: boot with fuse.enable_uring=1); then mount again"};
}

Finding check_uring(const DoctorPaths& paths) {
    io_uring_params params{};
    long fd = syscall(SYS_io_uring_setup, 4, &params);
    if (fd >= 0) {
        close(static_cast<int>(fd));
        return {"io_uring", Grade::kOk, "allowed", ""};
    }
    int code = errno;
    Result<std::string> disabled = read_file(paths.uring_disabled, 64);
    bool by_sysctl = disabled.ok() && trimmed(*disabled) != "0";
    std::string advice =
        by_sysctl ? "as root: sysctl kernel.io_uring_disabled=0"
                  : "in a container: allow the io_uring system calls in its seccomp profile; "
                    "else a kernel of at least 5.10 is needed";
    return {"io_uring",
            Grade::kFail,
            std::string("refused by the kernel: ") + std::strerror(code),
            advice};
}

Finding check_space(const DoctorPaths& paths) {
    FreeSpace space = free_space(paths.space);
    uint64_t free_bytes = space.free_bytes;
    std::string what = human_bytes(free_bytes) + " free at " + space.at;
    if (free_bytes < kSpaceMin) {
        return {"space",
                Grade::kFail,
                what,
                "make room (at least 1 GiB), or give kdfs up a --dir on another disk"};
    }
    if (free_bytes < kSpaceWanted) {
        return {"space", Grade::kWarn, what, "for more than a trial, give --dir on a larger disk"};
    }
    return {"space", Grade::kOk, what, ""};
}

std::vector<Finding> examine_machine(const DoctorPaths& paths, uint64_t port_base) {
    return {check_programs(),
            check_fuse_device(paths),
            check_fusermount(),
            check_libfuse(),
            check_uring(paths),
            check_fuse_uring(paths),
            limit_finding("open files", RLIMIT_NOFILE, kOpenFilesWanted, "files"),
            limit_finding("locked memory", RLIMIT_MEMLOCK, kMemoryLockWanted, "bytes"),
            check_ports(port_base),
            check_clock(),
            check_space(paths)};
}

Command doctor_command() { return {doctor_spec(), doctor}; }

}  // namespace kdfs::tools
