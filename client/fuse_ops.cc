#include "client/fuse_ops.h"

#include "client/fuse_bridge.h"
#include "client/fuse_convert.h"

#include <sys/stat.h>

#include <cerrno>
#include <utility>

namespace kdfs::client {
namespace {

FuseBridge& bridge(fuse_req_t req) { return *static_cast<FuseBridge*>(fuse_req_userdata(req)); }

pb::Create creation(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
    const fuse_ctx* context = fuse_req_ctx(req);
    pb::Create op;
    op.set_parent(parent);
    op.set_name(name);
    op.set_mode(mode);
    op.set_uid(context->uid);
    op.set_gid(context->gid);
    return op;
}

void op_init(void* user, fuse_conn_info* connection) {
    static_cast<FuseBridge*>(user)->init(connection);
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
    bridge(req).lookup(req, InodeId(parent), name);
}

// Inode numbers are the server's, so there is nothing to count.
void op_forget(fuse_req_t req, fuse_ino_t, uint64_t) { fuse_reply_none(req); }
void op_forget_multi(fuse_req_t req, size_t, fuse_forget_data*) { fuse_reply_none(req); }

void op_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
    bridge(req).getattr(req, InodeId(ino));
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat* attr, int to_set, fuse_file_info*) {
    pb::SetAttr op;
    op.set_ino(ino);
    if ((to_set & FUSE_SET_ATTR_MODE) != 0) {
        op.set_mode(attr->st_mode);
    }
    if ((to_set & FUSE_SET_ATTR_UID) != 0) {
        op.set_uid(attr->st_uid);
    }
    if ((to_set & FUSE_SET_ATTR_GID) != 0) {
        op.set_gid(attr->st_gid);
    }
    if ((to_set & FUSE_SET_ATTR_SIZE) != 0) {
        op.set_size(static_cast<uint64_t>(attr->st_size));
    }
    struct timespec now {};
    clock_gettime(CLOCK_REALTIME, &now);
    if ((to_set & FUSE_SET_ATTR_ATIME) != 0) {
        bool is_now = (to_set & FUSE_SET_ATTR_ATIME_NOW) != 0;
        op.set_atime(from_timespec(is_now ? now : attr->st_atim));
    }
    if ((to_set & FUSE_SET_ATTR_MTIME) != 0) {
        bool is_now = (to_set & FUSE_SET_ATTR_MTIME_NOW) != 0;
        op.set_mtime(from_timespec(is_now ? now : attr->st_mtim));
    }
    bool kill = (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0;
#ifdef FUSE_SET_ATTR_KILL_SUID
    kill = kill || (to_set & (FUSE_SET_ATTR_KILL_SUID | FUSE_SET_ATTR_KILL_SGID)) != 0;
#endif
    op.set_kill_suid(kill);
    bridge(req).setattr(req, std::move(op));
}

void op_readlink(fuse_req_t req, fuse_ino_t ino) { bridge(req).readlink(req, InodeId(ino)); }

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
    pb::Create op = creation(req, parent, name, mode);
    op.set_rdev(rdev);
    bridge(req).make(req, std::move(op));
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
    bridge(req).make(req, creation(req, parent, name, (mode & ~mode_t{S_IFMT}) | S_IFDIR));
}

void op_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
    pb::Create op = creation(req, parent, name, S_IFLNK | 0777);
    op.set_symlink(target);
    bridge(req).make(req, std::move(op));
}

void op_create(fuse_req_t req,
               fuse_ino_t parent,
               const char* name,
               mode_t mode,
               fuse_file_info* info) {
    pb::Create op = creation(req, parent, name, (mode & ~mode_t{S_IFMT}) | S_IFREG);
    op.set_exclusive((info->flags & O_EXCL) != 0);
    op.set_truncate((info->flags & O_TRUNC) != 0);
    bridge(req).create(req, std::move(op), *info);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
    bridge(req).remove(req, InodeId(parent), name, false);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
    bridge(req).remove(req, InodeId(parent), name, true);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char* name) {
    bridge(req).link(req, InodeId(ino), InodeId(parent), name);
}

void op_open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
    bridge(req).open(req, InodeId(ino), *info);
}

void op_read(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
    bridge(req).read(req, info->fh, static_cast<uint64_t>(offset), size);
}

void op_flush(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
    bridge(req).flush(req, info->fh);
}

void op_release(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
    bridge(req).release(req, info->fh);
}

void op_fsync(fuse_req_t req, fuse_ino_t, int data_only, fuse_file_info* info) {
    bridge(req).fsync(req, info->fh, data_only != 0);
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
    bridge(req).opendir(req, InodeId(ino), *info);
}

void op_readdir(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
    bridge(req).readdir(req, info->fh, static_cast<uint64_t>(offset), size);
}

void op_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
    bridge(req).releasedir(req, info->fh);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) { bridge(req).fsyncdir(req); }

void op_statfs(fuse_req_t req, fuse_ino_t) { bridge(req).statfs(req); }

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char* name, size_t size) {
    bridge(req).getxattr(req, InodeId(ino), name, size);
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size) {
    bridge(req).listxattr(req, InodeId(ino), size);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char* name) {
    bridge(req).removexattr(req, InodeId(ino), name);
}

// libfuse passes these more arguments than our functions have.
void add_long_ones(fuse_lowlevel_ops& ops) {
    ops.rename = [](fuse_req_t req,
                    fuse_ino_t parent,
                    const char* name,
                    fuse_ino_t new_parent,
                    const char* new_name,
                    unsigned flags) {
        constexpr unsigned kKnown = 3;  // RENAME_NOREPLACE, RENAME_EXCHANGE
        if ((flags & ~kKnown) != 0) {
            fuse_reply_err(req, EINVAL);
            return;
        }
        pb::Rename op;
        op.set_parent(parent);
        op.set_name(name);
        op.set_new_parent(new_parent);
        op.set_new_name(new_name);
        op.set_flags(flags);
        bridge(req).rename(req, std::move(op));
    };
    ops.write = [](fuse_req_t req,
                   fuse_ino_t,
                   const char* data,
                   size_t size,
                   off_t offset,
                   fuse_file_info* info) {
        bridge(req).write(req, data, size, static_cast<uint64_t>(offset), info);
    };
    ops.setxattr = [](fuse_req_t req,
                      fuse_ino_t ino,
                      const char* name,
                      const char* value,
                      size_t size,
                      int flags) {
        pb::SetXattr op;
        op.set_ino(ino);
        op.set_name(name);
        op.set_value(value, size);
        op.set_flags(static_cast<uint32_t>(flags));
        bridge(req).setxattr(req, std::move(op));
    };
}

fuse_lowlevel_ops make_operations() {
    fuse_lowlevel_ops ops{};
    add_long_ones(ops);
    ops.init = op_init;
    ops.lookup = op_lookup;
    ops.forget = op_forget;
    ops.forget_multi = op_forget_multi;
    ops.getattr = op_getattr;
    ops.setattr = op_setattr;
    ops.readlink = op_readlink;
    ops.mknod = op_mknod;
    ops.mkdir = op_mkdir;
    ops.symlink = op_symlink;
    ops.create = op_create;
    ops.unlink = op_unlink;
    ops.rmdir = op_rmdir;
    ops.link = op_link;
    ops.open = op_open;
    ops.read = op_read;
    ops.flush = op_flush;
    ops.release = op_release;
    ops.fsync = op_fsync;
    ops.opendir = op_opendir;
    ops.readdir = op_readdir;
    ops.releasedir = op_releasedir;
    ops.fsyncdir = op_fsyncdir;
    ops.statfs = op_statfs;
    ops.getxattr = op_getxattr;
    ops.listxattr = op_listxattr;
    ops.removexattr = op_removexattr;
    return ops;
}

}  // namespace

const fuse_lowlevel_ops& fuse_operations() {
    static const fuse_lowlevel_ops operations = make_operations();
    return operations;
}

}  // namespace kdfs::client
