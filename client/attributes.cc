// Attributes: what FileClient does with inodes as a whole.

#include "client/file_client.h"
#include "client/hold.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace kdfs::client {

// The inode with attributes that are current, from the server if there is no lease.
Task<Result<InodeRef>> FileClient::fresh(InodeId ino) {
    if (cached_attr(ino) != nullptr) {
        co_return cache_.find(ino);
    }
    pb::MetaRequest request;
    request.mutable_getattr()->set_ino(ino.value);
    request.mutable_getattr()->set_want(pb::LEASE_READ);
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return adopt(reply->attr());
}

Task<Result<pb::Attr>> FileClient::getattr(InodeId ino) {
    auto inode = co_await fresh(ino);
    if (!inode.ok()) {
        co_return std::move(inode).error();
    }
    co_return (*inode)->attr;
}

Task<Result<pb::Attr>> FileClient::setattr(pb::SetAttr op) {
    InodeRef inode = cache_.get(InodeId(op.ino()));
    if (op.has_size()) {
        co_return co_await set_size(std::move(inode), std::move(op));
    }
    if (set_locally(*inode, op)) {
        co_return inode->attr;
    }
    co_return co_await setattr_call(std::move(op));
}

// Times, and what changes nothing, need no call under an exclusive lease.
bool FileClient::set_locally(Inode& inode, const pb::SetAttr& op) {
    constexpr uint32_t kPermissionBits = 07777;
    if (!usable(inode, pb::LEASE_EXCLUSIVE) || op.has_ctime()) {
        return false;
    }
    bool same_mode =
        !op.has_mode() || (op.mode() & kPermissionBits) == (inode.attr.mode() & kPermissionBits);
    // A change of owner drops set-id bits and capabilities even if the owner stays the same.
    bool privileged = (inode.attr.mode() & (S_ISUID | S_ISGID)) != 0 || inode.attr.has_xattrs();
    bool same_owner = (!op.has_uid() || op.uid() == inode.attr.uid()) &&
                      (!op.has_gid() || op.gid() == inode.attr.gid()) &&
                      (!op.kill_suid() || !privileged);
    // Only a flush carries the time of access: not for one that was set on purpose.
    constexpr int64_t kNow = 1000000000;
    bool atime_now = !op.has_atime() || op.atime() > env_.wall_clock().now() - kNow;
    if (!same_mode || !same_owner || !atime_now) {
        return false;
    }
    if (op.has_atime()) {
        inode.attr.set_atime(op.atime());
    }
    if (op.has_mtime()) {
        inode.attr.set_mtime(op.mtime());
    }
    inode.attr.set_ctime(time_after(inode.attr.ctime()));
    if (!inode.meta_dirty()) {
        inode.meta_dirty_since = env_.now();
        meta_dirty_.emplace(inode.ino, cache_.find(inode.ino));
        wake_background_.set();
    }
    inode.times_dirty = true;
    inode.meta_synced = false;
    return true;
}

Task<Result<pb::Attr>> FileClient::setattr_call(pb::SetAttr op) {
    bool sets_size = op.has_size();
    bool sets_times = op.has_mtime() || sets_size;
    InodeId ino(op.ino());
    InodeRef inode = cache_.get(ino);
    // Ours are out of date from the moment the server has the new ones.
    bool had_times = inode->times_dirty;
    if (sets_times) {
        inode->times_dirty = false;
    }
    pb::MetaRequest request;
    *request.mutable_setattr() = std::move(op);
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        inode->times_dirty = inode->times_dirty || had_times;
        co_return std::move(reply).error();
    }
    inode->size_synced = inode->size_synced && !sets_size;
    inode->meta_synced = false;
    adopt(reply->attr());
    pb::Attr answer = reply->attr();
    if (inode->lease != pb::LEASE_NONE) {
        answer = inode->attr;
    }
    co_return answer;
}

// Also a larger size is the server's to set: if a writer went without saying how far it wrote, what
// it left beyond the end is cut.
Task<Result<pb::Attr>> FileClient::set_size(InodeRef inode, pb::SetAttr op) {
    if (!usable(*inode, pb::LEASE_EXCLUSIVE)) {
        // With the lease no other client writes while the chunks are cut. Without (several
        // writers) the server cuts what it knows of.
        KDFS_CO_TRY(co_await want_exclusive(inode));
    }
    Hold hold(*this, inode, Hold::For::kTruncation);
    co_await hold.quiet();
    Status told;
    if (inode->meta_dirty()) {
        // The server must know how far the chunks reach, to cut them.
        told = co_await flush_meta(inode, false);
    }
    Result<pb::Attr> attr = pb::Attr();
    if (told.ok()) {
        co_await hold.quiet();
        attr = co_await setattr_call(std::move(op));
    } else {
        attr = std::move(told).error();
    }
    if (attr.ok()) {
        drop_fetched(*inode, 0, UINT64_MAX);
    }
    hold.end();
    close_unused(*inode);
    co_return attr;
}

Task<Result<std::string>> FileClient::getxattr(InodeId ino, std::string name) {
    const pb::Attr* attr = cached_attr(ino);
    // Names below "kdfs." are the server's own, which every directory has.
    if (attr != nullptr && !attr->has_xattrs() && !name.starts_with("kdfs.")) {
        co_return Error(Errc::kNoData, "no attribute '" + name + "'");
    }
    pb::MetaRequest request;
    request.mutable_getxattr()->set_ino(ino.value);
    request.mutable_getxattr()->set_name(name);
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return std::move(*reply->mutable_value());
}

Task<Result<std::vector<std::string>>> FileClient::listxattr(InodeId ino) {
    pb::MetaRequest request;
    request.mutable_listxattr()->set_ino(ino.value);
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    std::vector<std::string> names(reply->names().begin(), reply->names().end());
    co_return names;
}

Task<Status> FileClient::setxattr(pb::SetXattr op) {
    InodeRef inode = cache_.get(InodeId(op.ino()));
    pb::MetaRequest request;
    *request.mutable_setxattr() = std::move(op);
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    inode->meta_synced = false;
    if (reply->has_attr() && reply->attr().ino() != 0) {
        adopt(reply->attr());
    }
    inode->attr.set_has_xattrs(true);
    co_return Status();
}

Task<Status> FileClient::removexattr(InodeId ino, std::string name) {
    pb::MetaRequest request;
    request.mutable_removexattr()->set_ino(ino.value);
    request.mutable_removexattr()->set_name(std::move(name));
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    if (reply->has_attr() && reply->attr().ino() != 0) {
        InodeRef inode = adopt(reply->attr());
        inode->meta_synced = false;
    }
    co_return Status();
}

Task<Result<pb::FsStat>> FileClient::statfs() {
    pb::MetaRequest request;
    request.mutable_statfs();
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return reply->statfs();
}

}  // namespace kdfs::client
