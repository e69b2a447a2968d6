#include "client/fuse_bridge.h"

#include "client/fuse_convert.h"
#include "client/fuse_ops.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <utility>

namespace kdfs::client {
namespace {

constexpr size_t kPageBytes = 4096;
// Header and arguments before the payload of a write.
constexpr size_t kPayloadOffset = 80;
constexpr size_t kHeaderRoom = 4096;
constexpr int kForgetNames = 8;  // FUSE_NOTIFY_INC_EPOCH
constexpr unsigned kForgetNamesMinor = 44;
constexpr unsigned kKernelReadAheadKiB = 2048;

struct NotifyHeader {
    uint32_t length;
    int32_t code;
    uint64_t unique;
};

void want(fuse_conn_info* connection, uint64_t flag, bool on) {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
    if (on) {
        fuse_set_feature_flag(connection, flag);
    } else {
        fuse_unset_feature_flag(connection, flag);
    }
#else
    auto bits = static_cast<unsigned>(flag);
    if (on) {
        connection->want |= connection->capable & bits;
    } else {
        connection->want &= ~bits;
    }
#endif
}

Error cannot_mount(const std::string& path, int error_number) {
    std::string why = "cannot mount at " + path + ": " + errno_error(error_number, "").detail;
    return {errc_from_errno(error_number), why};
}

// The mount option string for libfuse.
std::string mount_options(const FuseMountOptions& options) {
    std::string out = "default_permissions,subtype=kdfs,fsname=" + options.source;
    if (geteuid() == 0) {
        out += ",allow_other";
    }
    if (options.read_only) {
        out += ",ro";
    }
    for (const std::string& one : options.extra) {
        out += "," + one;
    }
    return out;
}

}  // namespace

FuseBridge::FuseBridge(Reactor& reactor, LogSink& log)
    : reactor_(reactor), log_(log), scope_(std::make_unique<TaskScope>(reactor)) {}

FuseBridge::~FuseBridge() {
    watch_.reset();
    if (session_ != nullptr) {
        unmount();
        fuse_session_destroy(session_);
    }
}

std::string FuseBridge::library_version() { return fuse_pkgversion(); }

Status FuseBridge::mount(const FuseMountOptions& options, FileClient& client) {
    client_ = &client;
    mount_point_ = options.mount_point;
    KDFS_TRY(prepare_ring(options.io_uring));
    KDFS_TRY(attach(options));
    KDFS_TRY(carry_replies(options.io_uring));
    int fd = fuse_session_fd(session_);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        return cannot_mount(mount_point_, errno);
    }
    fresh_buffer();
    auto watch = reactor_.watch_readable(fd, [this] { on_readable(); });
    if (!watch.ok()) {
        return std::move(watch).error();
    }
    watch_ = std::move(*watch);
    return {};
}

Status FuseBridge::attach(const FuseMountOptions& options) {
    std::string option_text = mount_options(options);
    std::string program = "kdfs-fuse";
    std::string dash_o = "-o";
    std::vector<char*> words = {program.data(), dash_o.data(), option_text.data()};
    fuse_args args = FUSE_ARGS_INIT(static_cast<int>(words.size()), words.data());
    session_ = fuse_session_new(&args, &fuse_operations(), sizeof(fuse_lowlevel_ops), this);
    fuse_opt_free_args(&args);
    if (session_ == nullptr) {
        return Error(Errc::kInvalidArgument,
                     "libfuse refuses the mount options '" + option_text + "'");
    }
    if (fuse_session_mount(session_, mount_point_.c_str()) != 0) {
        int error_number = errno == 0 ? EIO : errno;
        fuse_session_destroy(std::exchange(session_, nullptr));
        return cannot_mount(mount_point_, error_number);
    }
    mounted_ = true;
    return {};
}

void FuseBridge::init(fuse_conn_info* connection) {
    connection->max_write = kRequestBytesMax;
    connection->max_background = kBackgroundMax;
    connection->congestion_threshold = kBackgroundMax * 3 / 4;
    connection->time_gran = 1;
    connection->max_readahead = std::max<unsigned>(connection->max_readahead, kRequestBytesMax);
    want(connection, FUSE_CAP_ASYNC_READ, true);
    want(connection, FUSE_CAP_ATOMIC_O_TRUNC, true);
    want(connection, FUSE_CAP_AUTO_INVAL_DATA, true);
    want(connection, FUSE_CAP_PARALLEL_DIROPS, true);
    want(connection, FUSE_CAP_ASYNC_DIO, true);
    // Its entries could not be kept (see docs/decisions.md) and would take the place of names that
    // are; attributes of a listing wait in our own cache for the lookups.
    want(connection, FUSE_CAP_READDIRPLUS, false);
    want(connection, FUSE_CAP_EXPLICIT_INVAL_DATA, false);
    want(connection, FUSE_CAP_WRITEBACK_CACHE, false);
    want(connection, FUSE_CAP_SPLICE_READ, false);
    want(connection, FUSE_CAP_SPLICE_WRITE, false);
    want(connection, FUSE_CAP_SPLICE_MOVE, false);
    want(connection, FUSE_CAP_POSIX_LOCKS, false);
    want(connection, FUSE_CAP_FLOCK_LOCKS, false);
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
    want(connection, FUSE_CAP_HANDLE_KILLPRIV_V2, true);
#endif
    can_forget_names_ = connection->proto_minor >= kForgetNamesMinor;
    initialised_ = true;
    LogEvent(log_, LogLevel::kInfo, "mounted")
        .with("path", mount_point_)
        .with("libfuse", library_version())
        .with("protocol", connection->proto_minor);
}

void FuseBridge::fresh_buffer() {
    constexpr size_t kBytes = kPageBytes + kHeaderRoom + kRequestBytesMax;
    void* memory = std::aligned_alloc(kPageBytes, kBytes);
    KDFS_CHECK(memory != nullptr);
    buffer_.owner = std::shared_ptr<void>(memory, std::free);
    buffer_.data = static_cast<std::byte*>(memory) + kPageBytes - kPayloadOffset;
}

void FuseBridge::on_readable() {
    for (int i = 0; i < kRequestsPerTurn; ++i) {
        if (!read_one()) {
            return;
        }
    }
}

// False if there is no request now.
bool FuseBridge::read_one() {
    if (buffer_.owner.use_count() > 1) {
        fresh_buffer();
    }
    ssize_t got = ::read(fuse_session_fd(session_), buffer_.data, kRequestBytesMax + kHeaderRoom);
    if (got < 0) {
        if (errno == EINTR || errno == ENOENT) {
            return true;
        }
        if (errno != EAGAIN) {
            watch_.reset();
            mounted_ = errno != ENODEV;
            ended_.set();
        }
        return false;
    }
    std::span<std::byte> message(buffer_.data, static_cast<size_t>(got));
    bool first = !initialised_;
    if (first) {
        look_at_init(message);
    }
    process(message);
    if (first && initialised_) {
        start_ring();
        raise_kernel_read_ahead();
    }
    if (fuse_session_exited(session_) != 0) {
        watch_.reset();
        ended_.set();
        return false;
    }
    return true;
}

void FuseBridge::process(std::span<std::byte> message) {
    fuse_buf request{};
    request.mem = message.data();
    request.size = message.size();
    fuse_session_process_buf(session_, &request);
}

// The kernel reads ahead 128 KiB unless told otherwise, which means small requests. Only root may
// tell; without, it works as well, slower.
void FuseBridge::raise_kernel_read_ahead() {
    std::ifstream mounts("/proc/self/mountinfo");
    std::string line;
    std::string device;
    while (std::getline(mounts, line)) {
        std::istringstream words(line);
        std::string id;
        std::string parent;
        std::string number;
        std::string root;
        std::string path;
        words >> id >> parent >> number >> root >> path;
        if (path == mount_point_) {
            device = number;
        }
    }
    std::ofstream setting("/sys/class/bdi/" + device + "/read_ahead_kb");
    setting << kKernelReadAheadKiB;
}

Task<void> FuseBridge::quiesce(TimePoint until) {
    watch_.reset();
    if (ring_) {
        ring_->pause();
    }
    constexpr Duration kLook = std::chrono::milliseconds(10);
    while (scope_->running() > 0 && reactor_.now() < until) {
        co_await sleep_for(reactor_, kLook);
    }
}

void FuseBridge::unmount() {
    watch_.reset();
    if (mounted_) {
        mounted_ = false;
        leave_mount();
    }
    ended_.set();
}

void FuseBridge::attributes(InodeId ino) {
    if (mounted_ && initialised_) {
        hand_over_replies();
        fuse_lowlevel_notify_inval_inode(session_, ino.value, -1, 0);
    }
}

void FuseBridge::names() {
    if (!mounted_ || !initialised_ || !can_forget_names_) {
        return;
    }
    hand_over_replies();
    NotifyHeader header{sizeof(NotifyHeader), kForgetNames, 0};
    ssize_t written = ::write(fuse_session_fd(session_), &header, sizeof header);
    KDFS_CHECK(written == sizeof header || errno == ENODEV || errno == ENOTCONN);
}

Buffer FuseBridge::payload(const char* data, size_t size) const {
    auto* bytes = reinterpret_cast<std::byte*>(const_cast<char*>(data));
    bool copied_anyway = size < WriteBuffer::kCopyBytes;
    if (!payload_in_ring_ && (copied_anyway || size >= kStealBytes)) {
        return Buffer::wrap(buffer_.owner, bytes, size);
    }
    return Buffer::copy_of(std::span<const std::byte>(bytes, size));
}

void FuseBridge::fail(fuse_req_t req, const Error& error) {
    ErrorClass kind = error_class(error.code);
    if (kind != ErrorClass::kCaller) {
        LogEvent(log_, LogLevel::kWarn, "operation failed").with("cause", error.to_string());
    }
    fuse_reply_err(req, to_errno(error.code));
}

void FuseBridge::answer(fuse_req_t req, const Status& status) {
    if (status.ok()) {
        fuse_reply_err(req, 0);
    } else {
        fail(req, status.error());
    }
}

fuse_entry_param FuseBridge::entry_of(InodeId parent,
                                      const std::string& name,
                                      const pb::Attr& attr) {
    InodeId ino(attr.ino());
    fuse_entry_param entry{};
    entry.ino = ino.value;
    entry.attr = to_stat(attr);
    entry.attr_timeout = client_->attr_cacheable(ino) ? kLongTimeoutSeconds : 0;
    bool keep = can_forget_names_ && client_->name_cacheable(parent, name, ino);
    entry.entry_timeout = keep ? kLongTimeoutSeconds : 0;
    return entry;
}

void FuseBridge::answer_entry(fuse_req_t req,
                              InodeId parent,
                              const std::string& name,
                              const pb::Attr& attr) {
    fuse_entry_param entry = entry_of(parent, name, attr);
    fuse_reply_entry(req, &entry);
}

void FuseBridge::answer_absent(fuse_req_t req, InodeId parent, const std::string& name) {
    if (!can_forget_names_ || !client_->name_cacheable(parent, name, InodeId())) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    fuse_entry_param entry{};
    entry.entry_timeout = kLongTimeoutSeconds;
    fuse_reply_entry(req, &entry);
}

void FuseBridge::answer_attr(fuse_req_t req, const pb::Attr& attr) {
    struct stat st = to_stat(attr);
    bool keep = client_->attr_cacheable(InodeId(attr.ino()));
    fuse_reply_attr(req, &st, keep ? kLongTimeoutSeconds : 0);
}

void FuseBridge::answer_value(fuse_req_t req, const std::string& value, size_t size) {
    if (size == 0) {
        fuse_reply_xattr(req, value.size());
    } else if (value.size() > size) {
        fuse_reply_err(req, ERANGE);
    } else {
        fuse_reply_buf(req, value.data(), value.size());
    }
}

}  // namespace kdfs::client
