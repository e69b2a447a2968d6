#include "mds/ops.h"

#include <utility>

namespace kdfs::mds {
namespace {

Status check_removable(const pb::Remove& op, const Inode& child) {
    if (op.directory() && !child.is_directory()) {
        return Error(Errc::kNotDirectory, "'" + op.name() + "' is not a directory: unlink it");
    }
    if (!op.directory() && child.is_directory()) {
        return Error(Errc::kIsDirectory, "'" + op.name() + "' is a directory: use rmdir");
    }
    if (child.is_directory() && child.size != 0) {
        return Error(
            Errc::kNotEmpty,
            "directory '" + op.name() + "' has " + std::to_string(child.size) + " entries");
    }
    return {};
}

Fate fate_of(const pb::Remove& op, const Inode& child, const OpContext& context) {
    if (op.not_open_ino() != child.ino.value || context.is_open(child.ino)) {
        return Fate::kOrphan;
    }
    bool unwritten = op.unwritten_lease_seq() != 0 && context.lease_stands &&
                     context.lease_stands(child.ino, op.unwritten_lease_seq());
    return unwritten ? Fate::kHasNoData : Fate::kCollect;
}

}  // namespace

uint64_t known_end(const Inode& inode, const OpContext& context) {
    bool unknown = context.written_by_other && context.written_by_other(inode.ino);
    return unknown ? kEndUnknown : inode.size;
}

uint64_t known_end(const Inode& inode, const OpContext& context, std::optional<uint64_t> told) {
    if (context.holds_exclusive && context.holds_exclusive(inode.ino)) {
        return told ? std::max(inode.size, *told) : kEndUnknown;
    }
    return known_end(inode, context);
}

void queue_dead_data(View& view, const Inode& inode, uint64_t end_bytes) {
    DeadData dead{inode.data, inode.layout, view.end_forgotten(inode) ? kEndUnknown : end_bytes};
    view.put(dead_data_key(inode.data), encode(dead));
    ++view.change_counts().gc_queued;
    view.effects().died.push_back(std::move(dead));
}

void free_inode(View& view, Inode& inode, Fate fate, uint64_t end_bytes) {
    if (inode.is_regular() && fate != Fate::kHasNoData) {
        queue_dead_data(view, inode, end_bytes);
    }
    if (inode.xattr_bytes != 0) {
        view.erase_range(xattr_key(inode.ino, {}), xattrs_end(inode.ino));
    }
    view.effects().freed.push_back(inode.ino);
    view.erase(inode);
}

bool drop_name(View& view, Inode& inode, Fate fate, uint64_t end_bytes, WallTime now) {
    view.change(inode, now);
    inode.nlink = inode.is_directory() || inode.nlink == 0 ? 0 : inode.nlink - 1;
    if (inode.nlink != 0) {
        return false;
    }
    if (fate != Fate::kOrphan) {
        free_inode(view, inode, fate, end_bytes);
        return false;
    }
    if (inode.is_directory()) {
        // Its parent may go before it does.
        inode.parent = kRootInode;
    }
    view.put(orphan_key(inode.ino), encode_orphan());
    ++view.change_counts().orphans;
    view.effects().orphaned.push_back(inode.ino);
    return true;
}

Reply op_remove(View& view, const pb::Remove& op, const OpContext& context) {
    KDFS_TRY(check_name(op.name()));
    KDFS_TRY_ASSIGN(Inode * parent, view.directory(InodeId(op.parent())));
    KDFS_TRY_ASSIGN(Dentry entry, view.entry(parent->ino, op.name()));
    KDFS_TRY_ASSIGN(Inode * child, view.inode_of(entry, parent->ino, op.name()));
    KDFS_TRY(check_removable(op, *child));
    KDFS_TRY(view.load_counters());

    Fate fate = fate_of(op, *child, context);
    view.erase_key(dentry_key(parent->ino, op.name()));
    change_directory(view, *parent, -1, context.now);
    parent->nlink -= child->is_directory() ? 1 : 0;
    pb::MetaReply reply;
    std::optional<uint64_t> told = op.has_size() ? std::optional(op.size()) : std::nullopt;
    uint64_t end_bytes = known_end(*child, context, told);
    reply.set_orphaned(drop_name(view, *child, fate, end_bytes, context.now));
    fill_attr(*child, *reply.mutable_attr());
    fill_attr(*parent, *reply.mutable_parent());
    return reply;
}

}  // namespace kdfs::mds
