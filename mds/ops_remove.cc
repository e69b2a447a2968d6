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

}  // namespace

void queue_dead_data(View& view, const Inode& inode) {
    DeadData dead{inode.data, inode.layout, inode.size};
    view.put(dead_data_key(inode.data), encode(dead));
    ++view.change_counts().gc_queued;
    view.effects().data_died = true;
}

void free_inode(View& view, Inode& inode) {
    if (inode.is_regular()) {
        queue_dead_data(view, inode);
    }
    if (inode.xattr_bytes != 0) {
        view.erase_range(xattr_key(inode.ino, {}), xattrs_end(inode.ino));
    }
    view.effects().freed.push_back(inode.ino);
    view.erase(inode);
}

bool drop_name(View& view, Inode& inode, bool keep_orphan, WallTime now) {
    view.change(inode, now);
    inode.nlink = inode.is_directory() || inode.nlink == 0 ? 0 : inode.nlink - 1;
    if (inode.nlink != 0) {
        return false;
    }
    if (!keep_orphan) {
        free_inode(view, inode);
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

    bool keep_orphan = op.not_open_ino() != child->ino.value || context.is_open(child->ino);
    view.erase_key(dentry_key(parent->ino, op.name()));
    change_directory(view, *parent, -1, context.now);
    parent->nlink -= child->is_directory() ? 1 : 0;
    pb::MetaReply reply;
    reply.set_orphaned(drop_name(view, *child, keep_orphan, context.now));
    fill_attr(*child, *reply.mutable_attr());
    fill_attr(*parent, *reply.mutable_parent());
    return reply;
}

}  // namespace kdfs::mds
