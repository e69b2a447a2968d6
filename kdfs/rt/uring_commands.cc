#include "kdfs/rt/uring_commands.h"

#include <liburing.h>
#include <sys/epoll.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace kdfs {
namespace {

// The kernel is short of memory when it takes no commands: a moment later.
constexpr Duration kRetryAfter = std::chrono::milliseconds(5);

}  // namespace

Result<std::unique_ptr<UringCommands>> UringCommands::create(Reactor& reactor,
                                                             unsigned commands_max,
                                                             DoneHandler on_done) {
    std::unique_ptr<UringCommands> commands(new UringCommands(reactor, std::move(on_done)));
    KDFS_TRY(commands->open(commands_max));
    return commands;
}

UringCommands::UringCommands(Reactor& reactor, DoneHandler on_done)
    : reactor_(reactor), on_done_(std::move(on_done)), ring_(std::make_unique<io_uring>()) {}

Status UringCommands::open(unsigned commands_max) {
    // Cooperative: the driver's work waits until this thread enters the kernel by itself.
    io_uring_params params{};
    params.flags = IORING_SETUP_SQE128 | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER;
    int failed = io_uring_queue_init_params(commands_max, ring_.get(), &params);
    if (failed < 0) {
        return errno_error(-failed, "an io_uring for commands to a driver cannot be set up");
    }
    ring_open_ = true;
    KDFS_TRY_ASSIGN(watch_token_, reactor_.watch(ring_->ring_fd, EPOLLIN, *this));
    reactor_.set_turn_handler(this);
    return {};
}

UringCommands::~UringCommands() {
    if (watch_token_ != 0) {
        reactor_.unwatch(watch_token_);
        reactor_.set_turn_handler(nullptr);
    }
    if (ring_open_) {
        flush();
        reactor_.cancel(retry_);
        io_uring_queue_exit(ring_.get());
    }
    reactor_.forget_flush(*this);
}

void UringCommands::queue(const Command& command) {
    KDFS_CHECK(command.arguments.size() <= kArgumentBytesMax);
    io_uring_sqe* entry = io_uring_get_sqe(ring_.get());
    // There are as many as commands at once.
    KDFS_CHECK(entry != nullptr);
    std::memset(static_cast<void*>(entry), 0, 2 * sizeof *entry);
    entry->opcode = IORING_OP_URING_CMD;
    entry->fd = command.fd;
    entry->cmd_op = command.operation;
    entry->user_data = command.tag;
    entry->addr = reinterpret_cast<uintptr_t>(command.buffers.data());
    entry->len = static_cast<uint32_t>(command.buffers.size());
    std::memcpy(static_cast<void*>(entry->cmd), command.arguments.data(), command.arguments.size());
    if (!flush_requested_) {
        flush_requested_ = true;
        reactor_.request_flush(*this);
    }
}

void UringCommands::flush() {
    flush_requested_ = false;
    while (io_uring_sq_ready(ring_.get()) > 0) {
        int taken = io_uring_submit(ring_.get());
        if (taken > 0 || taken == -EINTR) {
            continue;
        }
        KDFS_CHECK(taken == 0 || taken == -EAGAIN || taken == -EBUSY || taken == -ENOMEM);
        reactor_.cancel(retry_);
        retry_ = reactor_.call_at(reactor_.now() + kRetryAfter, [this] { flush(); });
        return;
    }
}

// The completions are taken in on_turn(), which comes next.
void UringCommands::on_fd_ready(uint32_t events) { (void)events; }

bool UringCommands::has_more() const { return io_uring_cq_ready(ring_.get()) > 0; }

void UringCommands::take_completions() {
    io_uring_cqe* completion = nullptr;
    for (int i = 0; i < kCompletionsPerRound; ++i) {
        if (!has_more() || io_uring_peek_cqe(ring_.get(), &completion) != 0) {
            return;
        }
        uint64_t tag = completion->user_data;
        int result = completion->res;
        io_uring_cqe_seen(ring_.get(), completion);
        on_done_(tag, result);
    }
}

}  // namespace kdfs
