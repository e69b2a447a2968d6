#include "kdfs/kv/rocks_files.h"

#include <fcntl.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

// So far ahead of the records a log is filled with zeros.
constexpr size_t kZeroBytes = 1024 * 1024;

IOStatus io_error(const std::string& path, const char* what, int error_number) {
    std::string text = std::string("cannot ") + what + " " + path;
    return error_number == ENOSPC ? IOStatus::NoSpace(text, std::strerror(error_number))
                                  : IOStatus::IOError(text, std::strerror(error_number));
}

// The descriptor of a log and what of it is on stable storage.
class LogState {
public:
    LogState(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
    ~LogState() { ::close(fd_); }
    LogState(const LogState&) = delete;
    LogState& operator=(const LogState&) = delete;

    const std::string& path() const { return path_; }
    int fd() const { return fd_; }
    void wrote() { ++written_; }
    // From any thread.
    IOStatus sync() {
        uint64_t covers = written_;
        if (synced_ >= covers) {
            return IOStatus::OK();
        }
        if (::fdatasync(fd_) != 0) {
            return io_error(path_, "sync", errno);
        }
        uint64_t known = synced_;
        while (known < covers && !synced_.compare_exchange_weak(known, covers)) {
        }
        return IOStatus::OK();
    }

private:
    std::string path_;
    int fd_;
    std::atomic<uint64_t> written_{0};  // writes so far
    std::atomic<uint64_t> synced_{0};
};

// The newest log of each directory.
class NewestLogs {
public:
    std::shared_ptr<LogState> replace(const std::string& directory, std::shared_ptr<LogState> log) {
        std::lock_guard lock(mutex_);
        return std::exchange(logs_[directory], std::move(log));
    }

private:
    std::mutex mutex_;
    std::map<std::string, std::shared_ptr<LogState>> logs_;
};

class LogFile final : public rocksdb::FSWritableFile {
public:
    LogFile(std::shared_ptr<LogState> state, std::shared_ptr<LogState> before)
        : state_(std::move(state)), before_(std::move(before)) {}
    ~LogFile() override { (void)cut(); }

    using FSWritableFile::Append;
    IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
        if (before_) {
            IOStatus synced = std::exchange(before_, nullptr)->sync();
            if (!synced.ok()) {
                return synced;
            }
        }
        IOStatus written = write_at(size_, data);
        if (!written.ok()) {
            return written;
        }
        size_ += data.size();
        state_->wrote();
        if (size_ <= zeroed_) {
            return written;
        }
        static const std::vector<char> zeros(kZeroBytes, '\0');
        // If there is no room for them, only speed is lost.
        (void)write_at(size_, Slice(zeros.data(), zeros.size()));
        zeroed_ = size_ + zeros.size();
        return written;
    }
    IOStatus Truncate(uint64_t size, const IOOptions&, IODebugContext*) override {
        size_ = std::min(size_, size);
        return cut();
    }
    IOStatus Close(const IOOptions&, IODebugContext*) override { return cut(); }
    IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
    IOStatus Sync(const IOOptions&, IODebugContext*) override { return state_->sync(); }
    IOStatus Fsync(const IOOptions&, IODebugContext*) override { return state_->sync(); }
    bool IsSyncThreadSafe() const override { return true; }
    uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return size_; }
    IOStatus Allocate(uint64_t, uint64_t, const IOOptions&, IODebugContext*) override {
        return IOStatus::OK();
    }
    IOStatus InvalidateCache(size_t, size_t) override { return IOStatus::OK(); }

private:
    IOStatus write_at(uint64_t offset, Slice data) {
        while (!data.empty()) {
            ssize_t done =
                ::pwrite(state_->fd(), data.data(), data.size(), static_cast<off_t>(offset));
            if (done < 0 && errno != EINTR) {
                return io_error(state_->path(), "write", errno);
            }
            size_t count = done < 0 ? 0 : static_cast<size_t>(done);
            data.remove_prefix(count);
            offset += count;
        }
        return IOStatus::OK();
    }
    IOStatus cut() {
        if (zeroed_ > size_ && ::ftruncate(state_->fd(), static_cast<off_t>(size_)) != 0) {
            return io_error(state_->path(), "shorten", errno);
        }
        zeroed_ = std::min(zeroed_, size_);
        return IOStatus::OK();
    }

    std::shared_ptr<LogState> state_;
    std::shared_ptr<LogState> before_;
    uint64_t size_ = 0;
    uint64_t zeroed_ = 0;
};

// RocksDB's logs: blocks of records, each behind u32 checksum, u16 length, u8 type.
constexpr size_t kLogBlockBytes = 32768;
constexpr size_t kLogHeaderBytes = 7;

// The bytes of a block before its first header of zeros; all of them if it has none.
size_t bytes_of_records(const Slice& block) {
    size_t at = 0;
    while (at + kLogHeaderBytes <= block.size()) {
        auto byte = [&](size_t i) { return static_cast<unsigned char>(block[at + i]); };
        size_t length = byte(4) | static_cast<size_t>(byte(5)) << 8;
        if (length == 0 && byte(6) == 0) {
            return at;
        }
        at += kLogHeaderBytes + length;
    }
    return block.size();
}

class LogReader final : public rocksdb::FSSequentialFile {
public:
    LogReader(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
    ~LogReader() override { ::close(fd_); }
    LogReader(const LogReader&) = delete;
    LogReader& operator=(const LogReader&) = delete;

    IOStatus find_end() {
        std::vector<char> block(kLogBlockBytes);
        for (;;) {
            Slice got;
            IOStatus read = read_at(end_, block.size(), block.data(), &got);
            if (!read.ok()) {
                return read;
            }
            size_t records = bytes_of_records(got);
            end_ += records;
            if (records < block.size()) {
                return read;
            }
        }
    }
    IOStatus Read(size_t n,
                  const IOOptions&,
                  Slice* result,
                  char* scratch,
                  IODebugContext*) override {
        n = static_cast<size_t>(std::min<uint64_t>(n, end_ - std::min(at_, end_)));
        IOStatus read = read_at(at_, n, scratch, result);
        at_ += result->size();
        return read;
    }
    IOStatus Skip(uint64_t n) override {
        at_ += n;
        return IOStatus::OK();
    }
    IOStatus InvalidateCache(size_t, size_t) override { return IOStatus::OK(); }

private:
    IOStatus read_at(uint64_t offset, size_t size, char* to, Slice* result) {
        size_t got = 0;
        while (got < size) {
            ssize_t done = ::pread(fd_, to + got, size - got, static_cast<off_t>(offset + got));
            if (done < 0 && errno != EINTR) {
                *result = Slice();
                return io_error(path_, "read", errno);
            }
            if (done == 0) {
                break;
            }
            got += done < 0 ? 0 : static_cast<size_t>(done);
        }
        *result = Slice(to, got);
        return IOStatus::OK();
    }

    std::string path_;
    int fd_;
    uint64_t at_ = 0;
    uint64_t end_ = 0;
};

bool is_log(const std::string& path) {
    constexpr std::string_view kSuffix = ".log";
    return path.size() > kSuffix.size() &&
           path.compare(path.size() - kSuffix.size(), kSuffix.size(), kSuffix) == 0;
}

class RocksFiles final : public rocksdb::FileSystemWrapper {
public:
    RocksFiles() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
    const char* Name() const override { return "kdfs"; }

    IOStatus NewWritableFile(const std::string& path,
                             const FileOptions& options,
                             std::unique_ptr<rocksdb::FSWritableFile>* result,
                             IODebugContext* context) override {
        if (!is_log(path)) {
            return target()->NewWritableFile(path, options, result, context);
        }
        constexpr mode_t kMode = 0644;
        int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, kMode);
        if (fd < 0) {
            return io_error(path, "create", errno);
        }
        auto state = std::make_shared<LogState>(path, fd);
        auto before = newest_.replace(path.substr(0, path.rfind('/')), state);
        *result = std::make_unique<LogFile>(std::move(state), std::move(before));
        return IOStatus::OK();
    }
    IOStatus NewSequentialFile(const std::string& path,
                               const FileOptions& options,
                               std::unique_ptr<rocksdb::FSSequentialFile>* result,
                               IODebugContext* context) override {
        if (!is_log(path)) {
            return target()->NewSequentialFile(path, options, result, context);
        }
        int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            return errno == ENOENT ? IOStatus::PathNotFound(path) : io_error(path, "open", errno);
        }
        auto reader = std::make_unique<LogReader>(path, fd);
        IOStatus found = reader->find_end();
        if (found.ok()) {
            *result = std::move(reader);
        }
        return found;
    }

private:
    NewestLogs newest_;
};

}  // namespace

std::unique_ptr<rocksdb::Env> make_rocks_files() {
    return rocksdb::NewCompositeEnv(std::make_shared<RocksFiles>());
}

}  // namespace kdfs
