#pragma once

#include "kdfs/rt/reactor.h"

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

struct io_uring;

namespace kdfs {

// Commands to a device driver over an io_uring of their own (IORING_OP_URING_CMD with long
// entries). Those queued in a turn go to the kernel in one call at its end; completions are taken
// at the begin of each round of a turn.
//
// The kernel works for a command, such as copying into its buffers, while this thread is in the
// kernel for whatever reason, and interrupts blocking calls of this thread for that.
// Threads: the loop's. Bounds: `commands_max` commands at once.
class UringCommands final : public FdHandler, public FlushHandler, public TurnHandler {
public:
    static constexpr size_t kArgumentBytesMax = 80;
    static constexpr int kCompletionsPerRound = 64;

    // `tag` is the command's; `result` is of the driver, a negative errno if it failed.
    using DoneHandler = Function<void(uint64_t tag, int result)>;

    struct Command {
        int fd = -1;
        uint32_t operation = 0;
        uint64_t tag = 0;
        std::span<const std::byte> arguments;
        // Read by the driver when it takes the command: they outlive the next flush().
        std::span<const iovec> buffers;
    };

    // An error if the system refuses an io_uring of this kind (Linux 6.0 and later have it).
    static Result<std::unique_ptr<UringCommands>> create(Reactor& reactor,
                                                         unsigned commands_max,
                                                         DoneHandler on_done);
    // Hands over what was queued. Commands under way are cancelled, which ends a moment later.
    ~UringCommands();
    UringCommands(const UringCommands&) = delete;
    UringCommands& operator=(const UringCommands&) = delete;

    void queue(const Command& command);
    // Hands over what is queued now, and calls for the completions that are there.
    void flush() override;
    void take_completions();

    void on_fd_ready(uint32_t events) override;
    void on_turn() override { take_completions(); }
    bool has_more() const override;

private:
    UringCommands(Reactor& reactor, DoneHandler on_done);
    Status open(unsigned commands_max);

    Reactor& reactor_;
    DoneHandler on_done_;
    std::unique_ptr<io_uring> ring_;
    bool ring_open_ = false;
    bool flush_requested_ = false;
    uint64_t watch_token_ = 0;
    TimerId retry_ = 0;
};

}  // namespace kdfs
