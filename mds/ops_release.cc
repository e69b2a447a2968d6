#include "mds/ops.h"

namespace kdfs::mds {
namespace {

Status release_one(View& view, const pb::ReleaseOne& item, const OpContext& context) {
    auto found = view.inode(InodeId(item.ino()));
    if (!found.ok() && found.error().code == Errc::kStaleHandle) {
        // Removed while its lease was on the way back.
        return {};
    }
    KDFS_TRY_ASSIGN(Inode * inode, std::move(found));
    DirtyState dirty;
    dirty.ino = inode->ino;
    dirty.exclusive = context.holds_exclusive(inode->ino);
    dirty.cut = item.cut();
    if (item.has_size()) {
        dirty.size_bytes = item.size();
    }
    if (item.has_mtime()) {
        dirty.mtime = item.mtime();
    }
    view.touch(inode->ino, Access::kChange);
    KDFS_TRY(take_dirty_state(view, *inode, dirty, context.now));
    if (item.still_open() || inode->nlink != 0) {
        return {};
    }
    if (context.is_open(inode->ino)) {
        view.effects().orphaned.push_back(inode->ino);
        return {};
    }
    KDFS_TRY(free_orphan(view, *inode, known_end(*inode, context)));
    return {};
}

}  // namespace

Result<bool> free_orphan(View& view, Inode& inode, uint64_t end_bytes) {
    if (inode.nlink != 0) {
        return false;
    }
    KDFS_TRY(view.load_counters());
    view.erase_key(orphan_key(inode.ino));
    --view.change_counts().orphans;
    free_inode(view, inode, Fate::kCollect, end_bytes);
    return true;
}

Reply op_release(View& view, const pb::Release& op, const OpContext& context) {
    for (const pb::ReleaseOne& item : op.items()) {
        KDFS_TRY(release_one(view, item, context));
    }
    return pb::MetaReply();
}

}  // namespace kdfs::mds
