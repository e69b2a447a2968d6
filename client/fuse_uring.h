#pragma once

#include "client/fuse_uring_entries.h"
#include "client/fuse_uring_message.h"
#include "kdfs/base/log.h"
#include "kdfs/rt/uring_commands.h"

#include <memory>
#include <span>
#include <vector>

namespace kdfs::client {

// FUSE over io_uring: the kernel puts requests into entries of ours and gets the replies from
// there, instead of by read() and write(). A reply and the wait for the next request are one
// command; the commands of a turn go to the kernel in one call. INIT, FORGET, INTERRUPT and
// notifications still go by the FUSE descriptor.
//
// An entry belongs to the kernel or has one request for us. A request's memory is ours until
// answer(); then it may change at once.
// Memory: RingShape::entries() payloads of the largest request are mapped; those that held large
// requests stay in memory.
// Threads: the loop's. The kernel copies requests in while this thread is in the kernel, so a loop
// that does not run holds up an unmount by others.
class FuseUring {
public:
    using RequestHandler = Function<void(std::span<std::byte> message)>;

    // For this machine's CPUs. The error says why it cannot be.
    static Result<std::unique_ptr<FuseUring>> create(Reactor& reactor,
                                                     LogSink& log,
                                                     uint64_t payload_bytes);
    // Hands over the replies that wait. The kernel takes back its side a moment later.
    ~FuseUring();
    FuseUring(const FuseUring&) = delete;
    FuseUring& operator=(const FuseUring&) = delete;

    // After the reply to INIT accepted the ring: from now on requests come to `on_request`. If the
    // kernel refuses, the error says why and requests come by the descriptor. Until it has an entry
    // for each CPU, or has refused one, applications wait.
    Status start(int fuse_fd, RequestHandler on_request);
    // Takes the reply to a request of the ring; false if it is none.
    bool answer(uint64_t unique, std::span<const iovec> parts);
    // Hands over no more requests.
    void pause() { paused_ = true; }
    // Gives the kernel the replies that wait for the end of the turn.
    void flush() { commands_->flush(); }

    const RingShape& shape() const { return shape_; }

private:
    FuseUring(LogSink& log, RingShape shape, size_t payload_bytes);
    Status open(Reactor& reactor);
    RingMemory memory_of(uint32_t entry) const;
    void command(uint32_t entry,
                 uint32_t operation,
                 uint64_t commit_id,
                 std::span<const iovec> buffers);
    void commit(RingEntries::Answered answered);
    void completed(uint32_t entry, int result);
    void take_request(uint32_t entry);
    void lose(uint32_t entry, int error_number);

    LogSink& log_;
    RingShape shape_;
    RingEntries entries_;
    size_t stride_;
    std::byte* mapped_ = nullptr;
    std::unique_ptr<UringCommands> commands_;
    std::vector<iovec> buffers_;  // of all entries; the kernel reads them when it registers
    int fuse_fd_ = -1;
    RequestHandler on_request_;
    bool paused_ = false;
    int loss_ = 0;  // the first errno with which an entry was lost other than by an unmount
};

}  // namespace kdfs::client
