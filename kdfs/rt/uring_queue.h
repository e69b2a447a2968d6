#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"
#include "kdfs/rt/task.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

struct io_uring;

namespace kdfs {

// The io_uring of one reactor, as awaitable file operations. Operations queue up during a turn;
// submit() hands them to the kernel in one call. An operation owns its buffers until the kernel is
// done with them, also when its awaiter is destroyed; the destructor waits for those under way.
// Bounds: kInFlightMax operations are with the kernel, the rest wait here in order.
class UringQueue {
public:
    static constexpr unsigned kInFlightMax = 256;

    static Result<std::unique_ptr<UringQueue>> create();
    ~UringQueue();
    UringQueue(const UringQueue&) = delete;
    UringQueue& operator=(const UringQueue&) = delete;

    // Fills `into` from `offset`. The number of bytes read, less only at the end of the file, or a
    // negative errno.
    Task<int64_t> read(int fd, uint64_t offset, Buffer into);
    // Writes all of `data`: its size, or a negative errno.
    Task<int64_t> write(int fd, uint64_t offset, BufferChain data);
    enum class SyncKind { kData, kAll };
    // 0 or a negative errno.
    Task<int64_t> sync(int fd, SyncKind kind);
    // sync_file_range(2) that only starts the writing: 0 or a negative errno.
    Task<int64_t> start_writeback(int fd, uint64_t offset, uint64_t size);
    // fallocate(2) with `mode`: 0 or a negative errno.
    Task<int64_t> allocate(int fd, int mode, uint64_t offset, uint64_t size);

    // For the reactor: the descriptor that is readable while completions wait; hand over what was
    // queued; take the completions that are there.
    int fd() const;
    void submit();
    void reap();
    // Something is queued that the kernel has not taken: submit() is to be called again soon.
    bool unsubmitted() const { return unsubmitted_; }

private:
    struct Operation;

    UringQueue() = default;
    Task<int64_t> run(std::shared_ptr<Operation> operation);
    void start(Operation& operation);
    void prepare(Operation& operation);
    void complete(Operation& operation, int result);

    std::unique_ptr<io_uring> ring_;
    bool ready_ = false;
    bool unsubmitted_ = false;
    unsigned in_flight_ = 0;
    std::deque<std::shared_ptr<Operation>> waiting_;
};

}  // namespace kdfs
