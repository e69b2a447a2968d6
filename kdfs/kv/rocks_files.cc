#include "kdfs/kv/rocks_files.h"

#include <fcntl.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
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

std::string name_in_directory(const std::string& path) { return path.substr(path.rfind('/') + 1); }

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

class LogFile final : public rocksdb::FSWritableFile {
public:
    // `sizes` may be null.
    LogFile(std::shared_ptr<LogState> state,
            std::shared_ptr<LogState> before,
            std::shared_ptr<RecordSizes> sizes)
        : state_(std::move(state)), before_(std::move(before)), sizes_(std::move(sizes)) {
        if (sizes_) {
            sizes_->begin_log(name_in_directory(state_->path()));
        }
    }
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
        if (sizes_) {
            sizes_->log_grew(name_in_directory(state_->path()), size_);
        }
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
    std::shared_ptr<RecordSizes> sizes_;
    uint64_t size_ = 0;
    uint64_t zeroed_ = 0;
};

// Counts what is written to a manifest, which RocksDB syncs only where a record ends.
class ManifestFile final : public rocksdb::FSWritableFileOwnerWrapper {
public:
    ManifestFile(std::unique_ptr<rocksdb::FSWritableFile> file,
                 std::string name,
                 std::shared_ptr<RecordSizes> sizes)
        : FSWritableFileOwnerWrapper(std::move(file)),
          name_(std::move(name)),
          sizes_(std::move(sizes)) {}

    IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* context) override {
        return count(data, target()->Append(data, options, context));
    }
    IOStatus Append(const Slice& data,
                    const IOOptions& options,
                    const rocksdb::DataVerificationInfo& verification,
                    IODebugContext* context) override {
        return count(data, target()->Append(data, options, verification, context));
    }
    IOStatus Sync(const IOOptions& options, IODebugContext* context) override {
        return note(target()->Sync(options, context));
    }
    IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
        return note(target()->Fsync(options, context));
    }

private:
    IOStatus count(const Slice& data, IOStatus status) {
        bytes_ += status.ok() ? data.size() : 0;
        return status;
    }
    IOStatus note(IOStatus status) {
        if (status.ok()) {
            sizes_->manifest_synced(name_, bytes_);
        }
        return status;
    }

    std::string name_;
    std::shared_ptr<RecordSizes> sizes_;
    uint64_t bytes_ = 0;
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

bool is_manifest(const std::string& path) {
    return name_in_directory(path).rfind("MANIFEST-", 0) == 0;
}

class RocksFiles final : public rocksdb::FileSystemWrapper {
public:
    explicit RocksFiles(std::shared_ptr<RecordSizes> sizes)
        : FileSystemWrapper(rocksdb::FileSystem::Default()), sizes_(std::move(sizes)) {}
    const char* Name() const override { return "kdfs"; }

    IOStatus NewWritableFile(const std::string& path,
                             const FileOptions& options,
                             std::unique_ptr<rocksdb::FSWritableFile>* result,
                             IODebugContext* context) override {
        if (!is_log(path)) {
            IOStatus made = target()->NewWritableFile(path, options, result, context);
            if (made.ok() && sizes_ && is_manifest(path)) {
                *result = std::make_unique<ManifestFile>(std::move(*result),
                                                         name_in_directory(path),
                                                         sizes_);
            }
            return made;
        }
        constexpr mode_t kMode = 0644;
        int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, kMode);
        if (fd < 0) {
            return io_error(path, "create", errno);
        }
        auto state = std::make_shared<LogState>(path, fd);
        auto before = replace_newest(state);
        *result = std::make_unique<LogFile>(std::move(state), std::move(before), sizes_);
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
    std::shared_ptr<LogState> replace_newest(std::shared_ptr<LogState> log) {
        std::lock_guard lock(mutex_);
        return std::exchange(newest_log_, std::move(log));
    }

    std::shared_ptr<RecordSizes> sizes_;
    std::mutex mutex_;
    std::shared_ptr<LogState> newest_log_;
};

}  // namespace

std::vector<RecordSizes::File> RecordSizes::newest() const {
    std::lock_guard lock(mutex_);
    std::vector<File> out;
    for (const File* file : {&manifest_, &log_before_, &log_}) {
        if (file->bytes != 0) {
            out.push_back(*file);
        }
    }
    return out;
}

void RecordSizes::begin_log(std::string name) {
    std::lock_guard lock(mutex_);
    log_before_ = std::exchange(log_, File{std::move(name), 0});
}

void RecordSizes::log_grew(const std::string& name, uint64_t bytes) {
    std::lock_guard lock(mutex_);
    if (name == log_.name) {
        log_.bytes = bytes;
    } else if (name == log_before_.name) {
        log_before_.bytes = bytes;
    }
}

void RecordSizes::manifest_synced(std::string name, uint64_t bytes) {
    std::lock_guard lock(mutex_);
    manifest_ = File{std::move(name), bytes};
}

std::unique_ptr<rocksdb::Env> make_rocks_files(std::shared_ptr<RecordSizes> sizes) {
    return rocksdb::NewCompositeEnv(std::make_shared<RocksFiles>(std::move(sizes)));
}

}  // namespace kdfs
