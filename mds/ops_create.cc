#include "kdfs/proto/layout.h"
#include "mds/ops.h"

#include <sys/stat.h>

#include <optional>
#include <utility>

namespace kdfs::mds {
namespace {

Error exists(uint64_t parent, std::string_view name) {
    return {Errc::kExists,
            "'" + std::string(name) + "' exists already in directory " + std::to_string(parent)};
}

Error too_many_links(InodeId ino) {
    return {Errc::kTooManyLinks,
            "inode " + std::to_string(ino.value) + " has " + std::to_string(kLinksMax) +
                " links, which is the most one can have"};
}

uint32_t full_mode(uint32_t mode) {
    uint32_t type = mode & S_IFMT;
    return (type == 0 ? uint32_t{S_IFREG} : type) | (mode & 07777U);
}

Status check_kind(const pb::Create& op) {
    switch (op.mode() & S_IFMT) {
        case 0:
        case S_IFREG:
        case S_IFDIR:
        case S_IFCHR:
        case S_IFBLK:
        case S_IFIFO:
        case S_IFSOCK:
            return {};
        case S_IFLNK:
            break;
        default:
            return Error(Errc::kInvalidArgument,
                         "mode " + std::to_string(op.mode()) + " names no type of file");
    }
    if (op.symlink().empty()) {
        return Error(Errc::kNotFound, "symlink '" + op.name() + "' has an empty target");
    }
    if (op.symlink().size() > kSymlinkBytesMax) {
        return Error(Errc::kNameTooLong,
                     "the target of symlink '" + op.name() + "' is longer than " +
                         std::to_string(kSymlinkBytesMax) + " bytes");
    }
    return {};
}

// An open with O_CREAT whose name is there.
Reply open_existing(View& view,
                    const pb::Create& op,
                    const Dentry& entry,
                    const OpContext& context) {
    if (op.exclusive() || !S_ISREG(full_mode(op.mode()))) {
        return exists(op.parent(), op.name());
    }
    KDFS_TRY_ASSIGN(Inode * parent, view.inode(InodeId(op.parent())));
    KDFS_TRY_ASSIGN(Inode * inode, view.inode_of(entry, parent->ino, op.name()));
    if (inode->is_directory()) {
        return Error(Errc::kIsDirectory,
                     "'" + op.name() + "' is a directory and cannot be opened for writing");
    }
    if (!inode->is_regular()) {
        // The kernel follows symlinks and opens devices by itself once it looks the name up.
        return Error(Errc::kStaleHandle,
                     "'" + op.name() + "' became something else than a file; look it up again");
    }
    if (op.truncate()) {
        KDFS_TRY(check_resize(view, *inode, 0));
        view.change(*inode, context.now);
        inode->mtime = context.now;
        resize(view, *inode, 0, context);
    }
    pb::MetaReply reply;
    fill_attr(*inode, *reply.mutable_attr());
    fill_attr(*parent, *reply.mutable_parent());
    return reply;
}

Result<pb::Layout> layout_of_new(View& view, const Inode& parent, const OpContext& context) {
    KDFS_TRY_ASSIGN(pb::Policy policy, effective_policy(view, parent));
    KDFS_TRY_ASSIGN(pb::Layout layout, context.choose_layout(policy));
    KDFS_TRY(check_layout(layout));
    return layout;
}

Inode& make_inode(View& view, const pb::Create& op, const Inode& parent, WallTime now) {
    Inode& inode = view.make(full_mode(op.mode()));
    inode.nlink = 1;
    inode.uid = op.uid();
    inode.gid = op.gid();
    inode.atime = inode.mtime = inode.ctime = now;
    if ((parent.mode & S_ISGID) != 0) {
        inode.gid = parent.gid;
        inode.mode |= inode.is_directory() ? uint32_t{S_ISGID} : 0U;
    }
    if (inode.is_directory()) {
        inode.nlink = 2;
        inode.parent = parent.ino;
    } else if (inode.is_symlink()) {
        inode.symlink = op.symlink();
        inode.size = op.symlink().size();
        inode.mode = S_IFLNK | 0777;
    } else if (S_ISCHR(inode.mode) || S_ISBLK(inode.mode)) {
        inode.rdev = op.rdev();
    }
    return inode;
}

}  // namespace

void change_directory(View& view, Inode& directory, int entries, WallTime now) {
    view.change(directory, now);
    directory.mtime = now;
    directory.size += static_cast<uint64_t>(static_cast<int64_t>(entries));
}

void put_dentry(View& view, InodeId parent, std::string_view name, const Inode& inode) {
    view.put(dentry_key(parent, name), encode(Dentry{inode.ino, inode.mode & S_IFMT}));
}

Reply op_create(View& view, const pb::Create& op, const OpContext& context) {
    KDFS_TRY(check_name(op.name()));
    KDFS_TRY(check_kind(op));
    KDFS_TRY_ASSIGN(Inode * parent, view.live_directory(InodeId(op.parent())));
    KDFS_TRY_ASSIGN(std::optional<Dentry> found, view.find(parent->ino, op.name()));
    if (found) {
        return open_existing(view, op, *found, context);
    }
    bool directory = S_ISDIR(op.mode());
    if (directory && parent->nlink >= kLinksMax) {
        return too_many_links(parent->ino);
    }
    pb::Layout layout;
    if (S_ISREG(full_mode(op.mode()))) {
        KDFS_TRY_ASSIGN(layout, layout_of_new(view, *parent, context));
    }
    KDFS_TRY(view.load_counters());

    Inode& inode = make_inode(view, op, *parent, context.now);
    if (inode.is_regular()) {
        // No other file can have this data id: both come from one counter.
        inode.data = DataId(inode.ino.value);
        inode.layout = std::move(layout);
    }
    put_dentry(view, parent->ino, op.name(), inode);
    change_directory(view, *parent, 1, context.now);
    parent->nlink += directory ? 1 : 0;
    pb::MetaReply reply;
    reply.set_created(true);
    fill_attr(inode, *reply.mutable_attr());
    fill_attr(*parent, *reply.mutable_parent());
    return reply;
}

Reply op_link(View& view, const pb::Link& op, const OpContext& context) {
    KDFS_TRY(check_name(op.new_name()));
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(InodeId(op.ino())));
    KDFS_TRY_ASSIGN(Inode * parent, view.live_directory(InodeId(op.new_parent())));
    KDFS_TRY_ASSIGN(std::optional<Dentry> found, view.find(parent->ino, op.new_name()));
    if (found) {
        return exists(op.new_parent(), op.new_name());
    }
    if (inode->is_directory()) {
        return Error(Errc::kNotPermitted,
                     "inode " + std::to_string(op.ino()) +
                         " is a directory: it has one name only, use a symlink");
    }
    if (inode->nlink == 0) {
        return Error(
            Errc::kNotFound,
            "inode " + std::to_string(op.ino()) + " has lost its last name and cannot get another");
    }
    if (inode->nlink >= kLinksMax) {
        return too_many_links(inode->ino);
    }

    view.change(*inode, context.now);
    ++inode->nlink;
    put_dentry(view, parent->ino, op.new_name(), *inode);
    change_directory(view, *parent, 1, context.now);
    pb::MetaReply reply;
    fill_attr(*inode, *reply.mutable_attr());
    fill_attr(*parent, *reply.mutable_parent());
    return reply;
}

}  // namespace kdfs::mds
