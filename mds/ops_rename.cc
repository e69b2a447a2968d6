#include "mds/ops.h"

#include <optional>
#include <utility>

namespace kdfs::mds {
namespace {

constexpr uint32_t kNoReplace = 1;
constexpr uint32_t kExchange = 2;

struct Places {
    Inode* parent = nullptr;
    Inode* new_parent = nullptr;
    Inode* source = nullptr;
    Inode* target = nullptr;  // what has the new name now, if anything
};

Status check_flags(const pb::Rename& op) {
    KDFS_TRY(check_name(op.name()));
    KDFS_TRY(check_name(op.new_name()));
    if (op.flags() > kExchange) {
        return Error(Errc::kInvalidArgument,
                     "rename flags " + std::to_string(op.flags()) +
                         ": only one of NOREPLACE and EXCHANGE is possible");
    }
    return {};
}

Result<Places> find_places(View& view, const pb::Rename& op) {
    Places at;
    KDFS_TRY_ASSIGN(at.parent, view.directory(InodeId(op.parent())));
    KDFS_TRY_ASSIGN(at.new_parent, view.live_directory(InodeId(op.new_parent())));
    KDFS_TRY_ASSIGN(Dentry source, view.entry(at.parent->ino, op.name()));
    KDFS_TRY_ASSIGN(at.source, view.inode_of(source, at.parent->ino, op.name()));
    KDFS_TRY_ASSIGN(std::optional<Dentry> target, view.find(at.new_parent->ino, op.new_name()));
    if (target) {
        KDFS_TRY_ASSIGN(at.target, view.inode_of(*target, at.new_parent->ino, op.new_name()));
    }
    return at;
}

// kInvalidArgument if `directory` is `moved` or lies below it.
Status check_not_below(View& view, const Inode& directory, const Inode& moved) {
    InodeId at = directory.ino;
    for (uint64_t depth = 0; depth < Namespace::kDepthMax; ++depth) {
        if (at == moved.ino) {
            return Error(
                Errc::kInvalidArgument,
                "directory " + std::to_string(moved.ino.value) + " cannot move below itself");
        }
        if (at == kRootInode) {
            return {};
        }
        KDFS_TRY_ASSIGN(Inode inode, view.peek(at));
        at = inode.parent;
    }
    return Error(Errc::kCorrupt,
                 "directory " + std::to_string(directory.ino.value) +
                     " has no way up to the root; run 'kdfs fsck'");
}

Status check_subtrees(View& view, const Places& at, uint32_t flags) {
    if (at.parent == at.new_parent) {
        return {};
    }
    if (at.source->is_directory()) {
        KDFS_TRY(check_not_below(view, *at.new_parent, *at.source));
    }
    if (flags == kExchange && at.target->is_directory()) {
        KDFS_TRY(check_not_below(view, *at.parent, *at.target));
    }
    return {};
}

Status check_replaceable(const pb::Rename& op, const Places& at) {
    if (at.target == nullptr) {
        return {};
    }
    if (at.source->is_directory() && !at.target->is_directory()) {
        return Error(Errc::kNotDirectory,
                     "'" + op.new_name() + "' is no directory, so no directory can replace it");
    }
    if (!at.source->is_directory() && at.target->is_directory()) {
        return Error(Errc::kIsDirectory,
                     "'" + op.new_name() + "' is a directory, so no file can replace it");
    }
    if (at.target->is_directory() && at.target->size != 0) {
        return Error(Errc::kNotEmpty, "directory '" + op.new_name() + "' is not empty");
    }
    return {};
}

// How many subdirectories more the new parent gets, which is also what the old one loses.
int subdirectories_moved(const Places& at, uint32_t flags) {
    int moved = at.source->is_directory() ? 1 : 0;
    if (flags == kExchange && at.target->is_directory()) {
        --moved;
    }
    return at.parent == at.new_parent ? 0 : moved;
}

Status check_links(const Places& at, uint32_t flags) {
    int more = subdirectories_moved(at, flags);
    bool frees_one = flags != kExchange && at.target != nullptr && at.target->is_directory();
    bool grows = more > 0 && !frees_one;
    bool swapped_back = more < 0 && at.parent->nlink >= kLinksMax;
    if ((grows && at.new_parent->nlink >= kLinksMax) || swapped_back) {
        return Error(Errc::kTooManyLinks,
                     "a directory cannot have more than " + std::to_string(kLinksMax) + " links");
    }
    return {};
}

void fill_reply(const Places& at, pb::MetaReply& reply) {
    fill_attr(*at.source, *reply.mutable_attr());
    fill_attr(*at.parent, *reply.mutable_parent());
    fill_attr(*at.new_parent, *reply.mutable_parent2());
    if (at.target != nullptr) {
        fill_attr(*at.target, *reply.mutable_replaced());
    }
}

// The inode has its name in another directory now.
void move_inode(View& view, Inode& inode, const Inode& to, WallTime now) {
    view.change(inode, now);
    if (inode.is_directory() && inode.parent != to.ino) {
        inode.parent = to.ino;
        view.forget_policies();
    }
}

void exchange(View& view, const pb::Rename& op, const Places& at, WallTime now) {
    put_dentry(view, at.parent->ino, op.name(), *at.target);
    put_dentry(view, at.new_parent->ino, op.new_name(), *at.source);
    change_directory(view, *at.parent, 0, now);
    change_directory(view, *at.new_parent, 0, now);
    move_inode(view, *at.source, *at.new_parent, now);
    move_inode(view, *at.target, *at.parent, now);
}

void move(View& view, const pb::Rename& op, const Places& at, WallTime now) {
    view.erase_key(dentry_key(at.parent->ino, op.name()));
    put_dentry(view, at.new_parent->ino, op.new_name(), *at.source);
    change_directory(view, *at.parent, -1, now);
    change_directory(view, *at.new_parent, at.target == nullptr ? 1 : 0, now);
    move_inode(view, *at.source, *at.new_parent, now);
}

}  // namespace

Reply op_rename(View& view, const pb::Rename& op, const OpContext& context) {
    KDFS_TRY(check_flags(op));
    KDFS_TRY_ASSIGN(Places at, find_places(view, op));
    if (op.flags() == kNoReplace && at.target != nullptr) {
        return Error(Errc::kExists, "'" + op.new_name() + "' exists already");
    }
    if (op.flags() == kExchange && at.target == nullptr) {
        return Error(Errc::kNotFound, "no '" + op.new_name() + "' to exchange with");
    }
    pb::MetaReply reply;
    if (at.source == at.target) {
        // Two names of one inode: POSIX wants nothing done.
        fill_reply(at, reply);
        return reply;
    }
    KDFS_TRY(check_subtrees(view, at, op.flags()));
    if (op.flags() != kExchange) {
        KDFS_TRY(check_replaceable(op, at));
    }
    KDFS_TRY(check_links(at, op.flags()));
    KDFS_TRY(view.load_counters());

    auto moved = static_cast<uint32_t>(subdirectories_moved(at, op.flags()));
    at.parent->nlink -= moved;
    at.new_parent->nlink += moved;
    if (op.flags() == kExchange) {
        exchange(view, op, at, context.now);
    } else {
        move(view, op, at, context.now);
        if (at.target != nullptr) {
            at.new_parent->nlink -= at.target->is_directory() ? 1 : 0;
            bool keep_orphan =
                op.not_open_ino() != at.target->ino.value || context.is_open(at.target->ino);
            Fate fate = keep_orphan ? Fate::kOrphan : Fate::kCollect;
            std::optional<uint64_t> told = op.has_size() ? std::optional(op.size()) : std::nullopt;
            uint64_t end_bytes = known_end(*at.target, context, told);
            reply.set_orphaned(drop_name(view, *at.target, fate, end_bytes, context.now));
        }
    }
    fill_reply(at, reply);
    return reply;
}

}  // namespace kdfs::mds
