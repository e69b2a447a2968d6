#pragma once

#include "client/dir_stream.h"
#include "client/file_client.h"
#include "client/fuse_uring.h"
#include "client/mount_options.h"
#include "kdfs/rt/reactor.h"
#include "kdfs/rt/sync.h"

#include <fuse_lowlevel.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace kdfs::client {

struct FuseMountOptions {
    std::string mount_point;
    std::string source;  // what mount(8) shows
    bool read_only = false;
    RingUse io_uring = RingUse::kAuto;
    std::vector<std::string> extra;  // other options of mount(8), such as noexec
};

// A FileClient as a mounted file system. Requests come by the FUSE device or over io_uring and are
// answered on the loop: at once where the cache has the answer, else by a coroutine each. libfuse
// takes requests apart and puts replies together; their bytes are carried here.
//
// Coherence: a notification never overtakes a reply that was given before it. The kernel keeps
// attributes and pages while this client has a lease, names while it has the directory's and the
// kernel can forget all names at once (protocol 7.44); a recall makes it forget before the lease
// goes back. Timeouts are decided in the turn in which the answer is given to the kernel.
//
// Memory: the payload of a large write is kept as it lies in the request's buffer if it came by
// the device, and copied if it came over io_uring.
//
// One loop. `reactor` and `log` outlive this; `client` does from mount() on.
class FuseBridge final : public Invalidator {
public:
    static constexpr uint64_t kRequestBytesMax = 1 * MiB;
    // Requests read in one turn before others get theirs.
    static constexpr int kRequestsPerTurn = 64;
    static constexpr unsigned kBackgroundMax = 256;
    // Writes below this are copied, so that they do not keep a whole request buffer.
    static constexpr uint64_t kStealBytes = 512 * KiB;
    static constexpr double kLongTimeoutSeconds = 86400;

    FuseBridge(Reactor& reactor, LogSink& log);
    ~FuseBridge() override;

    // Mounts and starts to answer. The error names the mount point and the cause.
    Status mount(const FuseMountOptions& options, FileClient& client);
    // Set once the file system is no longer mounted, by whomever.
    Event& ended() { return ended_; }
    // Takes no more requests, waits for those under way up to `until`.
    Task<void> quiesce(TimePoint until);
    void unmount();
    // Forgets requests that will not end any more. Before the client goes.
    void drop_requests() { scope_.reset(); }
    // "3.18.3".
    static std::string library_version();

    void attributes(InodeId ino) override;
    void names() override;

    // The operations, called by fuse_ops.cc.
    void init(fuse_conn_info* connection);
    void lookup(fuse_req_t req, InodeId parent, const char* name);
    void getattr(fuse_req_t req, InodeId ino);
    void setattr(fuse_req_t req, pb::SetAttr op);
    void readlink(fuse_req_t req, InodeId ino);
    void make(fuse_req_t req, pb::Create op);
    void create(fuse_req_t req, pb::Create op, fuse_file_info info);
    void remove(fuse_req_t req, InodeId parent, const char* name, bool directory);
    void rename(fuse_req_t req, pb::Rename op);
    void link(fuse_req_t req, InodeId ino, InodeId parent, const char* name);
    void open(fuse_req_t req, InodeId ino, fuse_file_info info);
    void read(fuse_req_t req, OpenId id, uint64_t offset, uint64_t length);
    void write(fuse_req_t req,
               const char* data,
               size_t size,
               uint64_t offset,
               fuse_file_info* info);
    void flush(fuse_req_t req, OpenId id);
    void release(fuse_req_t req, OpenId id);
    void fsync(fuse_req_t req, OpenId id, bool data_only);
    void opendir(fuse_req_t req, InodeId ino, fuse_file_info info);
    void readdir(fuse_req_t req, uint64_t id, uint64_t offset, size_t size);
    void releasedir(fuse_req_t req, uint64_t id);
    void fsyncdir(fuse_req_t req);
    void statfs(fuse_req_t req);
    void setxattr(fuse_req_t req, pb::SetXattr op);
    void getxattr(fuse_req_t req, InodeId ino, const char* name, size_t size);
    void listxattr(fuse_req_t req, InodeId ino, size_t size);
    void removexattr(fuse_req_t req, InodeId ino, const char* name);

private:
    // Where one request is read to. The payload of a write lies at kPayloadOffset, which is page
    // aligned.
    struct RequestBuffer {
        std::shared_ptr<void> owner;
        std::byte* data = nullptr;
    };

    // fuse_bridge_ring.cc: the two ways of requests and replies.
    Status prepare_ring(RingUse use);
    Status carry_replies(RingUse use);
    void look_at_init(std::span<const std::byte> request);
    void start_ring();
    void log_transport();
    void take_from_ring(std::span<std::byte> message);
    ssize_t send(int fd, std::span<iovec> parts);
    void hand_over_replies();
    void leave_mount();

    Status attach(const FuseMountOptions& options);
    void on_readable();
    bool read_one();
    void process(std::span<std::byte> message);
    void fresh_buffer();
    Buffer payload(const char* data, size_t size) const;
    void fail(fuse_req_t req, const Error& error);
    void answer(fuse_req_t req, const Status& status);
    fuse_entry_param entry_of(InodeId parent, const std::string& name, const pb::Attr& attr);
    void answer_entry(fuse_req_t req, InodeId parent, const std::string& name, const pb::Attr& a);
    void answer_absent(fuse_req_t req, InodeId parent, const std::string& name);
    void answer_attr(fuse_req_t req, const pb::Attr& attr);
    void answer_value(fuse_req_t req, const std::string& value, size_t size);
    bool add_entry(fuse_req_t req,
                   const DirStream& stream,
                   uint64_t number,
                   std::vector<char>& out);
    void raise_kernel_read_ahead();

    Task<void> do_lookup(fuse_req_t req, InodeId parent, std::string name);
    Task<void> do_getattr(fuse_req_t req, InodeId ino);
    Task<void> do_setattr(fuse_req_t req, pb::SetAttr op);
    Task<void> do_readlink(fuse_req_t req, InodeId ino);
    Task<void> do_make(fuse_req_t req, pb::Create op);
    Task<void> do_create(fuse_req_t req, pb::Create op, fuse_file_info info);
    Task<void> do_remove(fuse_req_t req, InodeId parent, std::string name, bool directory);
    Task<void> do_rename(fuse_req_t req, pb::Rename op);
    Task<void> do_link(fuse_req_t req, InodeId ino, InodeId parent, std::string name);
    Task<void> do_open(fuse_req_t req, InodeId ino, fuse_file_info info);
    Task<void> do_read(fuse_req_t req, OpenId id, uint64_t offset, uint64_t length);
    Task<void> do_write(fuse_req_t req, WriteOp op);
    Task<void> do_fsync(fuse_req_t req, OpenId id, bool data_only);
    Task<void> do_readdir(fuse_req_t req, uint64_t id, uint64_t offset, size_t size);
    Task<void> do_fsyncdir(fuse_req_t req);
    Task<void> do_statfs(fuse_req_t req);
    Task<void> do_setxattr(fuse_req_t req, pb::SetXattr op);
    Task<void> do_getxattr(fuse_req_t req, InodeId ino, std::string name, size_t size);
    Task<void> do_listxattr(fuse_req_t req, InodeId ino, size_t size);
    Task<void> do_removexattr(fuse_req_t req, InodeId ino, std::string name);

    Reactor& reactor_;
    LogSink& log_;
    FileClient* client_ = nullptr;
    fuse_session* session_ = nullptr;
    std::string mount_point_;
    bool mounted_ = false;
    bool can_forget_names_ = false;
    bool initialised_ = false;
    RequestBuffer buffer_;
    std::map<uint64_t, std::shared_ptr<DirStream>> directories_;
    uint64_t next_directory_ = 1;
    Event ended_;
    std::unique_ptr<FdWatch> watch_;
    // Nothing if requests come by the device only; then the reason.
    std::unique_ptr<FuseUring> ring_;
    std::string no_ring_because_;
    uint64_t init_unique_ = 0;  // while the reply to INIT is to accept the ring
    bool ring_accepted_ = false;
    bool payload_in_ring_ = false;  // of the request that is being taken apart
    std::unique_ptr<TaskScope> scope_;
};

}  // namespace kdfs::client
