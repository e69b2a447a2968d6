#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

namespace kdfs::fuzz {

// A file in memory with a path, for what is only read from files.
class ScratchFile {
public:
    explicit ScratchFile(std::string_view text) : fd_(::memfd_create("scratch", MFD_CLOEXEC)) {
        ssize_t written = ::write(fd_, text.data(), text.size());
        (void)written;
    }
    ScratchFile(const ScratchFile&) = delete;
    ScratchFile& operator=(const ScratchFile&) = delete;
    ~ScratchFile() { ::close(fd_); }
    std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }
    int fd() const { return fd_; }

private:
    int fd_;
};

}  // namespace kdfs::fuzz
