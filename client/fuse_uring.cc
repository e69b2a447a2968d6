#include "client/fuse_uring.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

namespace kdfs::client {
namespace {

constexpr const char* kCpuList = "/sys/devices/system/cpu/possible";
constexpr size_t kBuffersPerEntry = 2;  // header and payload

Result<uint32_t> possible_cpus() {
    std::ifstream file(kCpuList);
    std::string text;
    if (!std::getline(file, text)) {
        return Error(Errc::kNotFound, std::string(kCpuList) + " cannot be read");
    }
    return count_cpus(text);
}

}  // namespace

Result<std::unique_ptr<FuseUring>> FuseUring::create(Reactor& reactor,
                                                     LogSink& log,
                                                     uint64_t payload_bytes) {
    uint32_t cpus = 0;
    KDFS_TRY_ASSIGN(cpus, possible_cpus());
    RingShape shape = ring_shape(cpus, payload_bytes);
    std::unique_ptr<FuseUring> ring(new FuseUring(log, shape, payload_bytes));
    KDFS_TRY(ring->open(reactor));
    return ring;
}

FuseUring::FuseUring(LogSink& log, RingShape shape, size_t payload_bytes)
    : log_(log),
      shape_(shape),
      entries_(shape.queues, shape.depth),
      stride_(RingMemory::kHeaderPageBytes + payload_bytes) {}

Status FuseUring::open(Reactor& reactor) {
    // Not reserved: a page takes memory once a request used it.
    size_t bytes = stride_ * entries_.size();
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
    if (memory == MAP_FAILED) {
        return errno_error(errno,
                           "cannot map " + std::to_string(bytes) + " bytes for the requests of " +
                               std::to_string(shape_.queues) + " CPUs");
    }
    mapped_ = static_cast<std::byte*>(memory);
    auto on_done = [this](uint64_t tag, int result) {
        completed(static_cast<uint32_t>(tag), result);
    };
    KDFS_TRY_ASSIGN(commands_, UringCommands::create(reactor, entries_.size(), on_done));
    return {};
}

FuseUring::~FuseUring() {
    commands_.reset();
    if (mapped_ != nullptr) {
        munmap(mapped_, stride_ * entries_.size());
    }
}

RingMemory FuseUring::memory_of(uint32_t entry) const {
    return {mapped_ + stride_ * entry, stride_ - RingMemory::kHeaderPageBytes};
}

Status FuseUring::start(int fuse_fd, RequestHandler on_request) {
    fuse_fd_ = fuse_fd;
    on_request_ = std::move(on_request);
    buffers_.reserve(kBuffersPerEntry * entries_.size());
    for (uint32_t entry = 0; entry < entries_.size(); ++entry) {
        RingMemory memory = memory_of(entry);
        buffers_.push_back({memory.page, sizeof(uring_abi::RequestHeader)});
        buffers_.push_back({memory.payload(), memory.payload_bytes});
        command(entry, uring_abi::kRegister, 0, std::span(buffers_).last(kBuffersPerEntry));
    }
    flush();
    // A refusal is there at once.
    commands_->take_completions();
    if (!entries_.complete()) {
        return errno_error(loss_ == 0 ? ENOTCONN : loss_, "the kernel refuses FUSE over io_uring");
    }
    return {};
}

void FuseUring::command(uint32_t entry,
                        uint32_t operation,
                        uint64_t commit_id,
                        std::span<const iovec> buffers) {
    uring_abi::Command arguments{};
    arguments.commit_id = commit_id;
    arguments.queue = entries_.queue_of(entry);
    UringCommands::Command command;
    command.fd = fuse_fd_;
    command.operation = operation;
    command.tag = entry;
    command.arguments = std::as_bytes(std::span(&arguments, 1));
    command.buffers = buffers;
    commands_->queue(command);
}

bool FuseUring::answer(uint64_t unique, std::span<const iovec> parts) {
    std::optional<RingEntries::Answered> answered = entries_.answer(unique);
    if (!answered) {
        return false;
    }
    RingMemory memory = memory_of(answered->entry);
    Status placed = place_reply(memory, parts);
    if (!placed.ok()) {
        LogEvent(log_, LogLevel::kError, "reply dropped").with("cause", placed.error().to_string());
        place_error(memory, unique, EIO);
    }
    commit(*answered);
    return true;
}

void FuseUring::commit(RingEntries::Answered answered) {
    command(answered.entry, uring_abi::kCommitAndFetch, answered.commit_id, {});
}

void FuseUring::completed(uint32_t entry, int result) {
    if (result < 0) {
        lose(entry, -result);
    } else {
        take_request(entry);
    }
}

void FuseUring::take_request(uint32_t entry) {
    RingMemory memory = memory_of(entry);
    RingRequestIds ids = request_ids(memory);
    if (!entries_.arrived(entry, ids.unique, ids.commit_id)) {
        lose(entry, EPROTO);
        return;
    }
    if (paused_) {
        return;
    }
    Result<std::span<std::byte>> message = assemble_request(memory);
    if (message.ok()) {
        on_request_(*message);
        return;
    }
    LogEvent(log_, LogLevel::kError, "request refused").with("cause", message.error().to_string());
    std::optional<RingEntries::Answered> answered = entries_.answer(ids.unique);
    place_error(memory, ids.unique, EIO);
    commit(*answered);
}

void FuseUring::lose(uint32_t entry, int error_number) {
    entries_.lost(entry);
    bool unmounted = error_number == ENOTCONN || error_number == ECONNABORTED ||
                     error_number == ECANCELED || error_number == ENODEV;
    if (unmounted || loss_ != 0) {
        return;
    }
    loss_ = error_number;
    LogEvent(log_, LogLevel::kError, "entry of the FUSE ring lost")
        .with("cause", std::strerror(error_number))
        .with("left", entries_.live());
}

}  // namespace kdfs::client
