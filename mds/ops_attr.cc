#include "mds/ops.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace kdfs::mds {
namespace {

constexpr char kCapability[] = "security.capability";
constexpr uint32_t kPermissionBits = 07777;

}  // namespace

Status check_resize(View& view, const Inode& inode, uint64_t size) {
    if (inode.is_directory()) {
        return Error(
            Errc::kIsDirectory,
            "inode " + std::to_string(inode.ino.value) + " is a directory and has no size to set");
    }
    if (!inode.is_regular()) {
        return Error(Errc::kInvalidArgument,
                     "inode " + std::to_string(inode.ino.value) +
                         " is no regular file and has no size to set");
    }
    if (size > kFileBytesMax) {
        return Error(Errc::kFileTooBig,
                     "a file cannot have " + std::to_string(size) + " bytes, at most " +
                         std::to_string(kFileBytesMax));
    }
    // For what resize() may queue.
    return view.load_counters();
}

void resize(View& view, Inode& inode, uint64_t size, const OpContext& context) {
    // An exclusive holder may have written chunks without having told the size yet; when it cuts
    // the file itself, it has told it.
    uint64_t end_bytes = view.end_forgotten(inode) ? kEndUnknown : known_end(inode, context);
    if (size == 0) {
        if (end_bytes != 0 || context.holds_exclusive(inode.ino)) {
            queue_dead_data(view, inode, end_bytes);
            inode.data = DataId(view.next_id());
        }
    } else if (size < end_bytes) {
        // Also where the file grows: what a writer left beyond the size that it told is older than
        // the new size and must not be found later, neither in the file nor as its size.
        Trim trim{inode.ino, inode.data, inode.layout, size, end_bytes, inode.change};
        view.put(trim_key(trim.ino, trim.change), encode(trim));
        ++view.change_counts().trims;
        view.effects().trim = std::move(trim);
    }
    inode.size = size;
    inode.cut = inode.change;
}

Result<uint32_t> capability_bytes(View& view, const Inode& inode) {
    if (inode.xattr_bytes == 0) {
        return 0U;
    }
    std::string key = xattr_key(inode.ino, kCapability);
    KDFS_TRY_ASSIGN(std::optional<std::string> record, view.get(key));
    if (!record) {
        return 0U;
    }
    KDFS_TRY_ASSIGN(std::string value, decode_xattr(key, *record));
    return xattr_bytes(kCapability, value);
}

void kill_suid(View& view, Inode& inode, uint32_t capability) {
    if (inode.is_directory()) {
        return;
    }
    inode.mode &= ~uint32_t{S_ISUID};
    // Without group execution the bit means mandatory locking.
    if ((inode.mode & S_IXGRP) != 0) {
        inode.mode &= ~uint32_t{S_ISGID};
    }
    if (capability != 0) {
        inode.xattr_bytes -= std::min(inode.xattr_bytes, capability);
        view.erase_key(xattr_key(inode.ino, kCapability));
    }
}

Reply op_setattr(View& view, const pb::SetAttr& op, const OpContext& context) {
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(InodeId(op.ino())));
    if (op.has_size()) {
        KDFS_TRY(check_resize(view, *inode, op.size()));
    }
    uint32_t capability = 0;
    if (op.kill_suid()) {
        KDFS_TRY_ASSIGN(capability, capability_bytes(view, *inode));
    }

    view.change(*inode, op.has_ctime() ? op.ctime() : context.now);
    if (op.has_mode()) {
        inode->mode = (inode->mode & S_IFMT) | (op.mode() & kPermissionBits);
    }
    inode->uid = op.has_uid() ? op.uid() : inode->uid;
    inode->gid = op.has_gid() ? op.gid() : inode->gid;
    if (op.kill_suid()) {
        kill_suid(view, *inode, capability);
    }
    if (op.has_size()) {
        resize(view, *inode, op.size(), context);
        inode->mtime = context.now;
    }
    inode->atime = op.has_atime() ? op.atime() : inode->atime;
    inode->mtime = op.has_mtime() ? op.mtime() : inode->mtime;
    pb::MetaReply reply;
    fill_attr(*inode, *reply.mutable_attr());
    return reply;
}

Status take_dirty_state(View& view, Inode& inode, const DirtyState& dirty, WallTime now) {
    uint64_t size = inode.size;
    // The size was set since: what was known before says nothing any more.
    bool outdated = dirty.cut < inode.cut;
    if (dirty.size_bytes && (inode.is_regular() || *dirty.size_bytes != 0)) {
        // Only setting the size makes a file shorter: an answer to a recall may be overtaken by the
        // flush of a later write.
        size = outdated ? size : std::max(size, *dirty.size_bytes);
        if (!inode.is_regular() || *dirty.size_bytes > kFileBytesMax) {
            return Error(Errc::kInvalidArgument,
                         "inode " + std::to_string(inode.ino.value) + " cannot have a size of " +
                             std::to_string(*dirty.size_bytes) + " bytes");
        }
    }
    uint32_t capability = 0;
    if (dirty.kill_suid) {
        KDFS_TRY_ASSIGN(capability, capability_bytes(view, inode));
    }

    // Who no longer holds the lease speaks of the times as they were then.
    bool times_fit = !dirty.change || *dirty.change == inode.change;
    WallTime mtime = size != inode.size ? now : inode.mtime;
    if (dirty.mtime && times_fit) {
        mtime = *dirty.mtime;
    }
    WallTime atime = dirty.atime.value_or(inode.atime);
    if (!dirty.exclusive || outdated) {
        // Several writers report in any order.
        mtime = std::max(mtime, inode.mtime);
        atime = std::max(atime, inode.atime);
    }
    uint32_t mode = inode.mode;
    if (dirty.kill_suid) {
        kill_suid(view, inode, capability);
    }
    bool content = size != inode.size || mtime != inode.mtime;
    if (content || mode != inode.mode || capability != 0) {
        // A write sets both times at once: what the holder showed meanwhile stays what it was.
        WallTime written = content ? mtime : now;
        view.change(inode, std::max(inode.ctime, written));
    } else if (atime != inode.atime) {
        view.change(inode);
    }
    inode.size = size;
    inode.mtime = mtime;
    inode.atime = atime;
    return {};
}

Reply op_flush(View& view, const pb::Flush& op, const OpContext& context) {
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(InodeId(op.ino())));
    DirtyState dirty;
    dirty.ino = inode->ino;
    dirty.size_bytes = op.size();
    dirty.exclusive = context.holds_exclusive(inode->ino);
    dirty.kill_suid = op.kill_suid();
    dirty.cut = op.cut();
    if (op.has_mtime()) {
        dirty.mtime = op.mtime();
    }
    if (op.has_atime()) {
        dirty.atime = op.atime();
    }
    view.touch(inode->ino, Access::kChange);
    KDFS_TRY(take_dirty_state(view, *inode, dirty, context.now));
    pb::MetaReply reply;
    fill_attr(*inode, *reply.mutable_attr());
    return reply;
}

}  // namespace kdfs::mds
