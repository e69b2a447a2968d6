#pragma once

#include <string>
#include <vector>

namespace kdfs::tools {

// One line of `kdfs doctor`.
struct Finding {
    enum class Grade { kOk, kWarn, kFail };
    std::string subject;
    Grade grade = Grade::kOk;
    std::string what;
    // What to do about it; empty where nothing is to be done.
    std::string advice;
};

// What doctor looks at, so that tests can show it other machines.
struct DoctorPaths {
    std::string fuse_device = "/dev/fuse";
    std::string fuse_uring = "/sys/module/fuse/parameters/enable_uring";
    std::string uring_disabled = "/proc/sys/kernel/io_uring_disabled";
    // Where the state directory is, or is to be.
    std::string space = "/var/tmp";
};

Finding check_fuse_device(const DoctorPaths& paths);
Finding check_fuse_uring(const DoctorPaths& paths);
Finding check_uring(const DoctorPaths& paths);
Finding check_space(const DoctorPaths& paths);
std::vector<Finding> examine_machine(const DoctorPaths& paths, uint64_t port_base);

}  // namespace kdfs::tools
