#include "kdfs/rt/uring_queue.h"

#include "kdfs/rt/sync.h"

#include <fcntl.h>
#include <liburing.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

// As many pieces of memory as one call to the kernel takes.
constexpr size_t kVectorsMax = 512;

}  // namespace

struct UringQueue::Operation {
    enum class Kind { kRead, kWrite, kWriteback, kSync, kAllocate };
    Kind kind = Kind::kRead;
    int fd = -1;
    int mode = 0;
    uint64_t offset = 0;
    uint64_t size = 0;
    Buffer target;
    BufferChain data;
    // What the kernel still has to transfer; vectors from `next` on.
    std::vector<iovec> vectors;
    size_t next = 0;
    int64_t transferred = 0;

    int64_t result = 0;
    Event finished;
    // Keeps the operation while the kernel has it.
    std::shared_ptr<Operation> self;

    // Skips `bytes` that were transferred; true if some are left.
    bool advance(size_t bytes) {
        transferred += static_cast<int64_t>(bytes);
        offset += bytes;
        while (next < vectors.size() && bytes >= vectors[next].iov_len) {
            bytes -= vectors[next].iov_len;
            ++next;
        }
        if (next < vectors.size()) {
            vectors[next].iov_base = static_cast<std::byte*>(vectors[next].iov_base) + bytes;
            vectors[next].iov_len -= bytes;
        }
        return next < vectors.size();
    }
};

Result<std::unique_ptr<UringQueue>> UringQueue::create() {
    std::unique_ptr<UringQueue> queue(new UringQueue());
    queue->ring_ = std::make_unique<io_uring>();
    int failed = io_uring_queue_init(kInFlightMax, queue->ring_.get(), 0);
    if (failed == -EPERM || failed == -EACCES) {
        return Error(Errc::kNotPermitted,
                     "io_uring is not permitted here (container seccomp profile, or sysctl "
                     "kernel.io_uring_disabled?): allow it for this service");
    }
    if (failed == -ENOSYS) {
        return Error(Errc::kNotSupported,
                     "io_uring is not supported by this kernel: Linux 5.15 or newer is needed");
    }
    if (failed < 0) {
        return errno_error(-failed, "io_uring cannot be set up (limit on locked memory?)");
    }
    queue->ready_ = true;
    return queue;
}

UringQueue::~UringQueue() {
    if (!ready_) {
        return;
    }
    waiting_.clear();
    submit();
    // The kernel writes into our buffers until it has answered.
    while (in_flight_ > 0) {
        io_uring_cqe* entry = nullptr;
        int failed = io_uring_wait_cqe(ring_.get(), &entry);
        KDFS_CHECK(failed == 0 || failed == -EINTR);
        reap();
        submit();
    }
    io_uring_queue_exit(ring_.get());
}

int UringQueue::fd() const { return ring_->ring_fd; }

Task<int64_t> UringQueue::read(int fd, uint64_t offset, Buffer into) {
    auto operation = std::make_shared<Operation>();
    operation->kind = Operation::Kind::kRead;
    operation->fd = fd;
    operation->offset = offset;
    operation->vectors.push_back({into.mutable_data(), into.size()});
    operation->target = std::move(into);
    return run(std::move(operation));
}

Task<int64_t> UringQueue::write(int fd, uint64_t offset, BufferChain data) {
    auto operation = std::make_shared<Operation>();
    operation->kind = Operation::Kind::kWrite;
    operation->fd = fd;
    operation->offset = offset;
    operation->vectors.reserve(data.pieces().size());
    for (const Buffer& piece : data.pieces()) {
        operation->vectors.push_back({const_cast<std::byte*>(piece.data()), piece.size()});
    }
    operation->data = std::move(data);
    return run(std::move(operation));
}

Task<int64_t> UringQueue::sync(int fd, SyncKind kind) {
    auto operation = std::make_shared<Operation>();
    operation->kind = Operation::Kind::kSync;
    operation->fd = fd;
    operation->mode = kind == SyncKind::kData ? IORING_FSYNC_DATASYNC : 0;
    return run(std::move(operation));
}

Task<int64_t> UringQueue::start_writeback(int fd, uint64_t offset, uint64_t size) {
    auto operation = std::make_shared<Operation>();
    operation->kind = Operation::Kind::kWriteback;
    operation->fd = fd;
    operation->offset = offset;
    operation->size = size;
    return run(std::move(operation));
}

Task<int64_t> UringQueue::allocate(int fd, int mode, uint64_t offset, uint64_t size) {
    auto operation = std::make_shared<Operation>();
    operation->kind = Operation::Kind::kAllocate;
    operation->fd = fd;
    operation->mode = mode;
    operation->offset = offset;
    operation->size = size;
    return run(std::move(operation));
}

Task<int64_t> UringQueue::run(std::shared_ptr<Operation> operation) {
    if (in_flight_ < kInFlightMax && waiting_.empty()) {
        operation->self = operation;
        start(*operation);
    } else {
        waiting_.push_back(operation);
    }
    co_await operation->finished.wait();
    co_return operation->result;
}

void UringQueue::start(Operation& operation) {
    ++in_flight_;
    prepare(operation);
}

void UringQueue::prepare(Operation& operation) {
    io_uring_sqe* entry = io_uring_get_sqe(ring_.get());
    if (entry == nullptr) {
        submit();
        entry = io_uring_get_sqe(ring_.get());
    }
    // There are as many entries as operations may be in flight.
    KDFS_CHECK(entry != nullptr);
    auto count =
        static_cast<unsigned>(std::min(operation.vectors.size() - operation.next, kVectorsMax));
    const iovec* first = operation.vectors.data() + operation.next;
    switch (operation.kind) {
        case Operation::Kind::kRead:
            io_uring_prep_readv(entry, operation.fd, first, count, operation.offset);
            break;
        case Operation::Kind::kWrite:
            io_uring_prep_writev(entry, operation.fd, first, count, operation.offset);
            break;
        case Operation::Kind::kWriteback:
            io_uring_prep_sync_file_range(entry,
                                          operation.fd,
                                          static_cast<unsigned>(operation.size),
                                          operation.offset,
                                          SYNC_FILE_RANGE_WRITE);
            break;
        case Operation::Kind::kSync:
            io_uring_prep_fsync(entry, operation.fd, static_cast<unsigned>(operation.mode));
            break;
        case Operation::Kind::kAllocate:
            io_uring_prep_fallocate(entry,
                                    operation.fd,
                                    operation.mode,
                                    static_cast<off_t>(operation.offset),
                                    static_cast<off_t>(operation.size));
            break;
    }
    io_uring_sqe_set_data(entry, &operation);
    unsubmitted_ = true;
}

void UringQueue::submit() {
    while (unsubmitted_) {
        int submitted = io_uring_submit(ring_.get());
        if (submitted >= 0) {
            unsubmitted_ = io_uring_sq_ready(ring_.get()) != 0;
        } else if (submitted == -EAGAIN || submitted == -EBUSY) {
            // The kernel is short of memory or completions wait: they are taken first, and the
            // next turn tries again.
            return;
        } else {
            KDFS_CHECK(submitted == -EINTR);
        }
    }
}

void UringQueue::reap() {
    io_uring_cqe* entry = nullptr;
    while (io_uring_peek_cqe(ring_.get(), &entry) == 0) {
        auto* operation = static_cast<Operation*>(io_uring_cqe_get_data(entry));
        int result = entry->res;
        io_uring_cqe_seen(ring_.get(), entry);
        complete(*operation, result);
    }
}

void UringQueue::complete(Operation& operation, int result) {
    bool again = result == -EINTR || result == -EAGAIN;
    if (result > 0) {
        again = operation.advance(static_cast<size_t>(result));
        result = 0;
    } else if (result == 0 && operation.kind == Operation::Kind::kWrite &&
               operation.next < operation.vectors.size()) {
        // A disk that takes nothing and says no error: not tried for ever.
        result = -EIO;
    }
    if (again) {
        prepare(operation);
        return;
    }
    operation.result = result < 0 ? result : operation.transferred;
    --in_flight_;
    std::shared_ptr<Operation> last = std::move(operation.self);
    last->finished.set();
    if (!waiting_.empty()) {
        std::shared_ptr<Operation> next = std::move(waiting_.front());
        waiting_.pop_front();
        next->self = next;
        start(*next);
    }
}

}  // namespace kdfs
