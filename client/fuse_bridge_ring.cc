// How requests and replies of FuseBridge travel: by the FUSE device, or over io_uring where the
// kernel offers it. Replies come from libfuse through its "custom io".

#include "client/fuse_bridge.h"

#include <linux/fuse.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>
#include <utility>

namespace kdfs::client {
namespace {

constexpr const char* kKernelParameter = "/sys/module/fuse/parameters/enable_uring";

// Empty if the kernel lets FUSE use io_uring.
std::string why_kernel_refuses() {
    std::ifstream file(kKernelParameter);
    std::string value;
    if (!std::getline(file, value)) {
        return "this kernel does not have FUSE over io_uring (Linux 6.14 and later do)";
    }
    if (value != "Y" && value != "1") {
        return std::string("switched off in the kernel (") + kKernelParameter +
               "); kdfs doctor says how to switch it on";
    }
    return "";
}

}  // namespace

Status FuseBridge::prepare_ring(RingUse use) {
    if (use == RingUse::kOff) {
        no_ring_because_ = "switched off by --io-uring";
        return {};
    }
    // libfuse has a ring of its own, which does not go together with replies from the loop.
    unsetenv("FUSE_URING_ENABLE");
    no_ring_because_ = why_kernel_refuses();
    if (no_ring_because_.empty()) {
        auto ring = FuseUring::create(reactor_, log_, kRequestBytesMax);
        if (ring.ok()) {
            ring_ = std::move(*ring);
        } else {
            no_ring_because_ = ring.error().detail;
        }
    }
    if (!ring_ && use == RingUse::kOn) {
        return Error(
            Errc::kNotSupported,
            "cannot mount at " + mount_point_ + " with --io-uring on: " + no_ring_because_);
    }
    return {};
}

// Has libfuse call us for each reply. Without a ring it writes them itself.
Status FuseBridge::carry_replies(RingUse use) {
    if (!ring_) {
        return {};
    }
    fuse_custom_io io{};
    io.writev = [](int fd, iovec* parts, int count, void* user) -> ssize_t {
        return static_cast<FuseBridge*>(user)->send(fd, {parts, static_cast<size_t>(count)});
    };
    io.read = [](int fd, void* into, size_t size, void*) -> ssize_t {
        return ::read(fd, into, size);
    };
    if (fuse_session_custom_io(session_, &io, fuse_session_fd(session_)) == 0) {
        return {};
    }
    ring_.reset();
    no_ring_because_ = "libfuse " + library_version() +
                       " is built without custom io; tools/setup_libfuse.sh builds one with it";
    if (use == RingUse::kOn) {
        return Error(
            Errc::kNotSupported,
            "cannot mount at " + mount_point_ + " with --io-uring on: " + no_ring_because_);
    }
    return {};
}

void FuseBridge::look_at_init(std::span<const std::byte> request) {
    if (!ring_) {
        return;
    }
    if (!init_offers_uring(request)) {
        ring_.reset();
        no_ring_because_ = "the kernel does not offer it to this mount";
        return;
    }
    fuse_in_header header{};
    std::memcpy(&header, request.data(), sizeof header);
    init_unique_ = header.unique;
}

// After the reply to INIT: from now on the kernel waits for the ring.
void FuseBridge::start_ring() {
    if (ring_ && !ring_accepted_) {
        ring_.reset();
        no_ring_because_ = "the reply to INIT could not accept it";
    }
    if (ring_) {
        auto take = [this](std::span<std::byte> message) { take_from_ring(message); };
        Status started = ring_->start(fuse_session_fd(session_), take);
        if (!started.ok()) {
            ring_.reset();
            no_ring_because_ = started.error().detail;
        }
    }
    log_transport();
}

void FuseBridge::log_transport() {
    if (ring_) {
        LogEvent(log_, LogLevel::kInfo, "requests come over io_uring")
            .with("queues", ring_->shape().queues)
            .with("depth", ring_->shape().depth);
    } else {
        LogEvent(log_, LogLevel::kInfo, "requests come by /dev/fuse, not over io_uring")
            .with("cause", no_ring_because_);
    }
}

void FuseBridge::take_from_ring(std::span<std::byte> message) {
    payload_in_ring_ = true;
    process(message);
    payload_in_ring_ = false;
}

// As writev(2): the bytes sent, or -1 and errno.
ssize_t FuseBridge::send(int fd, std::span<iovec> parts) {
    fuse_out_header header{};
    KDFS_CHECK(!parts.empty() && parts[0].iov_len >= sizeof header);
    std::memcpy(&header, parts[0].iov_base, sizeof header);
    bool is_notification = header.unique == 0;
    if (ring_ && !is_notification) {
        if (ring_->answer(header.unique, parts)) {
            return header.len;
        }
        if (header.unique == init_unique_ && header.error == 0 && parts.size() > 1) {
            init_unique_ = 0;
            ring_accepted_ =
                accept_uring({static_cast<std::byte*>(parts[1].iov_base), parts[1].iov_len});
        }
    }
    return ::writev(fd, parts.data(), static_cast<int>(parts.size()));
}

// What the kernel is told to forget may be in a reply that waits for the end of the turn.
void FuseBridge::hand_over_replies() {
    if (ring_) {
        ring_->flush();
    }
}

void FuseBridge::leave_mount() {
    if (!ring_) {
        fuse_session_unmount(session_);
        return;
    }
    ring_->pause();
    ring_->flush();
    // The unmount waits until the kernel has its requests back from this thread, which gives them
    // back whenever it enters the kernel: so another one has to wait.
    std::thread leaving([this] { fuse_session_unmount(session_); });
    leaving.join();
    ring_.reset();
}

}  // namespace kdfs::client
