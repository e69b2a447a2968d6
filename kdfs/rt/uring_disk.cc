#include "kdfs/rt/uring_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace kdfs {
namespace {

class UringFile : public File {
public:
    UringFile(UringQueue& ring, std::string path, int fd, uint64_t size)
        : ring_(ring), path_(std::move(path)), fd_(fd), size_(size) {}
    ~UringFile() override { ::close(fd_); }
    UringFile(const UringFile&) = delete;
    UringFile& operator=(const UringFile&) = delete;

    Task<Result<Buffer>> read(uint64_t offset, uint64_t size) override {
        Buffer into = Buffer::allocate(size);
        if (size == 0) {
            co_return into;
        }
        int64_t got = co_await ring_.read(fd_, offset, into);
        if (got < 0) {
            co_return failed(got, "read", offset, size);
        }
        if (static_cast<uint64_t>(got) != size) {
            std::string text = where("read", offset, size) + ": the file ends after " +
                               std::to_string(offset + static_cast<uint64_t>(got)) + " bytes";
            co_return Error(Errc::kIo, std::move(text));
        }
        co_return into;
    }

    Task<Status> write(uint64_t offset, BufferChain data) override {
        uint64_t size = data.size();
        if (size == 0) {
            co_return Status();
        }
        int64_t done = co_await ring_.write(fd_, offset, std::move(data));
        if (done < 0) {
            co_return failed(done, "write", offset, size);
        }
        size_ = std::max(size_, offset + size);
        co_return Status();
    }

    Task<void> start_writeback(uint64_t offset, uint64_t size) override {
        (void)co_await ring_.start_writeback(fd_, offset, size);
    }

    Task<Status> sync() override {
        int64_t done = co_await ring_.sync(fd_, UringQueue::SyncKind::kData);
        if (done < 0) {
            co_return errno_error(static_cast<int>(-done), "sync " + path_);
        }
        co_return Status();
    }

    Task<Status> allocate(uint64_t size) override {
        if (size <= size_) {
            co_return Status();
        }
        int64_t done = co_await ring_.allocate(fd_, 0, 0, size);
        if (done < 0) {
            co_return failed(done, "allocate", 0, size);
        }
        size_ = std::max(size_, size);
        co_return Status();
    }

    Task<Status> punch(uint64_t offset, uint64_t size) override {
        if (size == 0) {
            co_return Status();
        }
        constexpr int kMode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        int64_t done = co_await ring_.allocate(fd_, kMode, offset, size);
        if (done < 0) {
            co_return failed(done, "punch", offset, size);
        }
        co_return Status();
    }

    uint64_t size() const override { return size_; }

private:
    std::string where(const char* what, uint64_t offset, uint64_t size) const {
        return std::string(what) + " " + path_ + " at " + std::to_string(offset) + " (" +
               std::to_string(size) + " bytes)";
    }
    Error failed(int64_t result, const char* what, uint64_t offset, uint64_t size) const {
        return errno_error(static_cast<int>(-result), where(what, offset, size));
    }

    UringQueue& ring_;
    std::string path_;
    int fd_;
    uint64_t size_;
};

Status check_name(const std::string& directory, const std::string& name) {
    if (name.empty() || name.size() > kNameBytesMax || name == "." || name == ".." ||
        name.find('/') != std::string::npos) {
        return Error(Errc::kInvalidArgument,
                     directory + ": \"" + name + "\" is not the name of a file in it");
    }
    return {};
}

}  // namespace

Result<std::unique_ptr<UringDisk>> UringDisk::open_directory(Reactor& reactor,
                                                             std::string directory) {
    int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return errno_error(errno, "open directory " + directory);
    }
    std::unique_ptr<UringDisk> disk(new UringDisk(reactor, directory, fd));
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            return Error(Errc::kBusy,
                         directory + " is in use by another process: stop that one first");
        }
        return errno_error(errno, "lock directory " + directory);
    }
    if (::faccessat(fd, ".", W_OK, 0) != 0) {
        return errno_error(errno, "directory " + directory + " is not writable");
    }
    return disk;
}

UringDisk::UringDisk(Reactor& reactor, std::string directory, int directory_fd)
    : reactor_(reactor), directory_(std::move(directory)), directory_fd_(directory_fd) {}

UringDisk::~UringDisk() { ::close(directory_fd_); }

Result<std::unique_ptr<File>> UringDisk::open_file(const std::string& name, int flags) {
    KDFS_TRY(check_name(directory_, name));
    constexpr mode_t kMode = 0600;
    int fd = ::openat(directory_fd_, name.c_str(), flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, kMode);
    if (fd < 0) {
        return errno_error(errno, ((flags & O_CREAT) != 0 ? "create " : "open ") + path_of(name));
    }
    struct stat attributes {};
    if (::fstat(fd, &attributes) != 0) {
        Error error = errno_error(errno, "stat " + path_of(name));
        ::close(fd);
        return error;
    }
    auto size = static_cast<uint64_t>(attributes.st_size);
    std::unique_ptr<File> file =
        std::make_unique<UringFile>(reactor_.ring(), path_of(name), fd, size);
    return file;
}

Task<Status> UringDisk::sync_directory() {
    int64_t done = co_await reactor_.ring().sync(directory_fd_, UringQueue::SyncKind::kAll);
    if (done < 0) {
        co_return errno_error(static_cast<int>(-done), "sync directory " + directory_);
    }
    co_return Status();
}

Task<Result<std::unique_ptr<File>>> UringDisk::open(std::string name) {
    co_return open_file(name, 0);
}

Task<Result<std::unique_ptr<File>>> UringDisk::create(std::string name) {
    Result<std::unique_ptr<File>> file = open_file(name, O_CREAT | O_EXCL);
    if (file.ok()) {
        Status synced = co_await sync_directory();
        if (!synced.ok()) {
            co_return std::move(synced).error();
        }
    }
    co_return file;
}

Task<Status> UringDisk::remove(std::string name) {
    KDFS_CO_TRY(check_name(directory_, name));
    if (::unlinkat(directory_fd_, name.c_str(), 0) != 0) {
        co_return errno_error(errno, "remove " + path_of(name));
    }
    co_return co_await sync_directory();
}

Task<Result<std::vector<std::string>>> UringDisk::list() {
    std::vector<std::string> names;
    DIR* stream = ::opendir(directory_.c_str());
    if (stream == nullptr) {
        co_return errno_error(errno, "list " + directory_);
    }
    while (dirent* entry = ::readdir(stream)) {
        if (entry->d_type == DT_REG) {
            names.emplace_back(entry->d_name);
        }
    }
    ::closedir(stream);
    std::sort(names.begin(), names.end());
    co_return names;
}

Task<Result<DiskSpace>> UringDisk::space() {
    struct statvfs numbers {};
    if (::fstatvfs(directory_fd_, &numbers) != 0) {
        co_return errno_error(errno, "space of " + directory_);
    }
    DiskSpace space;
    space.total_bytes = numbers.f_blocks * numbers.f_frsize;
    space.free_bytes = numbers.f_bavail * numbers.f_frsize;
    co_return space;
}

}  // namespace kdfs
