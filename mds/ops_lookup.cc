#include "mds/ops.h"

#include <algorithm>
#include <optional>

namespace kdfs::mds {

Status check_name(std::string_view name) {
    if (name.size() > kNameBytesMax) {
        return Error(Errc::kNameTooLong,
                     "a name has " + std::to_string(name.size()) + " bytes, at most " +
                         std::to_string(kNameBytesMax) + " are possible");
    }
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\0", 2)) != std::string_view::npos) {
        return Error(Errc::kInvalidArgument,
                     "'" + std::string(name) + "' is not a name a directory entry can have");
    }
    return {};
}

Reply op_lookup(View& view, const pb::Lookup& op) {
    KDFS_TRY(check_name(op.name()));
    InodeId parent_ino(op.parent());
    KDFS_TRY_ASSIGN(Inode * parent, view.directory(parent_ino));
    KDFS_TRY_ASSIGN(std::optional<Dentry> found, view.find(parent_ino, op.name()));
    pb::MetaReply reply;
    if (found) {
        KDFS_TRY_ASSIGN(Inode * child, view.inode_of(*found, parent_ino, op.name()));
        fill_attr(*child, *reply.mutable_attr());
    } else if (op.want_negative()) {
        reply.mutable_attr();
    } else {
        return Error(Errc::kNotFound,
                     "no '" + op.name() + "' in directory " + std::to_string(op.parent()));
    }
    fill_attr(*parent, *reply.mutable_parent());
    return reply;
}

Reply op_getattr(View& view, const pb::GetAttr& op) {
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(InodeId(op.ino())));
    pb::MetaReply reply;
    fill_attr(*inode, *reply.mutable_attr());
    return reply;
}

Reply op_open(View& view, const pb::Open& op, const OpContext& context) {
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(InodeId(op.ino())));
    if (inode->is_directory() && (op.write() || op.truncate())) {
        return Error(Errc::kIsDirectory,
                     "inode " + std::to_string(op.ino()) +
                         " is a directory and cannot be opened for writing");
    }
    // Truncation means nothing to devices and pipes.
    if (op.truncate() && inode->is_regular()) {
        KDFS_TRY(check_resize(view, *inode, 0));
        view.change(*inode, context.now);
        inode->mtime = context.now;
        resize(view, *inode, 0, context);
    }
    pb::MetaReply reply;
    fill_attr(*inode, *reply.mutable_attr());
    return reply;
}

Reply op_statfs(View& view) {
    KDFS_TRY_ASSIGN(Counters counters, view.read_counters());
    pb::MetaReply reply;
    KDFS_TRY_ASSIGN(Inode root, view.peek(kRootInode));
    reply.mutable_statfs()->set_files(counters.counts.inodes);
    // 0 where the root leaves it open: whoever knows the cluster fills it in.
    reply.mutable_statfs()->set_replicas(root.policy.replicas());
    return reply;
}

}  // namespace kdfs::mds
