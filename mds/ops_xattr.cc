#include "mds/ops.h"

#include <optional>
#include <utility>

namespace kdfs::mds {
namespace {

constexpr uint32_t kCreate = 1;
constexpr uint32_t kReplace = 2;
// More names than fit into the bound of one inode: each has at least a namespace and a letter.
constexpr uint64_t kNamesMax = kXattrBytesPerInodeMax / 6 + 1;

bool has_prefix(std::string_view name, std::string_view prefix) {
    return name.size() > prefix.size() && name.substr(0, prefix.size()) == prefix;
}

Status check_xattr_name(std::string_view name) {
    if (name.size() > kXattrNameBytesMax) {
        return Error(Errc::kRange,
                     "an extended attribute's name has more than " +
                         std::to_string(kXattrNameBytesMax) + " bytes");
    }
    if (name.empty() || name == "user." || name == "trusted." || name == "security." ||
        name.find('\0') != std::string_view::npos) {
        return Error(Errc::kInvalidArgument, "an extended attribute's name is incomplete");
    }
    if (!has_prefix(name, "user.") && !has_prefix(name, "trusted.") &&
        !has_prefix(name, "security.") && !is_policy_name(name)) {
        return Error(Errc::kNotSupported,
                     "extended attribute '" + std::string(name) +
                         "': only user.*, trusted.*, security.* and kdfs.* are stored");
    }
    return {};
}

Error no_xattr(InodeId ino, std::string_view name) {
    return {Errc::kNoData,
            "inode " + std::to_string(ino.value) + " has no extended attribute '" +
                std::string(name) + "'"};
}

Result<std::optional<std::string>> find_xattr(View& view,
                                              const Inode& inode,
                                              std::string_view name) {
    if (inode.xattr_bytes == 0) {
        return std::optional<std::string>();
    }
    std::string key = xattr_key(inode.ino, name);
    KDFS_TRY_ASSIGN(std::optional<std::string> record, view.get(key));
    if (!record) {
        return std::optional<std::string>();
    }
    KDFS_TRY_ASSIGN(std::string value, decode_xattr(key, *record));
    return std::optional<std::string>(std::move(value));
}

Reply reply_attr(const Inode& inode) {
    pb::MetaReply reply;
    fill_attr(inode, *reply.mutable_attr());
    return reply;
}

Reply change_policy(View& view,
                    Inode& inode,
                    std::string_view name,
                    std::string_view value,
                    const OpContext& context) {
    if (!inode.is_directory()) {
        return Error(Errc::kNotSupported,
                     "'" + std::string(name) + "' is set on directories, for new files in them");
    }
    if (value.empty() && !has_policy_field(inode.policy, name)) {
        return no_xattr(inode.ino, name);
    }
    pb::Policy policy = inode.policy;
    KDFS_TRY(set_policy_field(policy, name, value));
    view.change(inode, context.now);
    inode.policy = std::move(policy);
    view.forget_policies();
    return reply_attr(inode);
}

Status check_room(const pb::SetXattr& op, const Inode& inode, uint64_t old_bytes) {
    if (op.value().size() > kXattrValueBytesMax) {
        return Error(Errc::kTooBig,
                     "extended attribute '" + op.name() + "' has more than " +
                         std::to_string(kXattrValueBytesMax) + " bytes");
    }
    uint64_t bytes = inode.xattr_bytes - old_bytes + xattr_bytes(op.name(), op.value());
    if (bytes > kXattrBytesPerInodeMax) {
        return Error(Errc::kNoSpace,
                     "inode " + std::to_string(inode.ino.value) +
                         " has no room for extended attribute '" + op.name() +
                         "': all of one inode may have " + std::to_string(kXattrBytesPerInodeMax) +
                         " bytes");
    }
    bool plain = inode.is_regular() || inode.is_directory();
    if (!plain && has_prefix(op.name(), "user.")) {
        return Error(Errc::kNotPermitted,
                     "'" + op.name() + "': only files and directories have user attributes");
    }
    return {};
}

Status check_set_flags(const pb::SetXattr& op, bool exists) {
    if (op.flags() > kReplace) {
        return Error(Errc::kInvalidArgument,
                     "setxattr flags " + std::to_string(op.flags()) + " are not possible");
    }
    if (op.flags() == kCreate && exists) {
        return Error(Errc::kExists, "extended attribute '" + op.name() + "' exists already");
    }
    if (op.flags() == kReplace && !exists) {
        return no_xattr(InodeId(op.ino()), op.name());
    }
    return {};
}

}  // namespace

uint32_t xattr_bytes(std::string_view name, std::string_view value) {
    return static_cast<uint32_t>(name.size() + value.size());
}

Reply op_getxattr(View& view, const pb::GetXattr& op) {
    KDFS_TRY(check_xattr_name(op.name()));
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(InodeId(op.ino())));
    pb::MetaReply reply;
    if (is_policy_name(op.name())) {
        KDFS_TRY_ASSIGN(*reply.mutable_value(), get_policy_xattr(view, *inode, op.name()));
        return reply;
    }
    KDFS_TRY_ASSIGN(std::optional<std::string> value, find_xattr(view, *inode, op.name()));
    if (!value) {
        return no_xattr(inode->ino, op.name());
    }
    reply.set_value(std::move(*value));
    return reply;
}

Reply op_listxattr(View& view, const pb::ListXattr& op) {
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(InodeId(op.ino())));
    pb::MetaReply reply;
    if (inode->xattr_bytes == 0) {
        return reply;
    }
    KDFS_TRY_ASSIGN(std::vector<KvEntry> found,
                    view.scan(xattr_key(inode->ino, {}), xattrs_end(inode->ino), kNamesMax));
    for (const KvEntry& record : found) {
        KDFS_TRY_ASSIGN(NamedKey name, parse_named_key(record.key));
        reply.add_names(std::string(name.name));
    }
    return reply;
}

Reply op_setxattr(View& view, const pb::SetXattr& op, const OpContext& context) {
    KDFS_TRY(check_xattr_name(op.name()));
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(InodeId(op.ino())));
    if (is_policy_name(op.name())) {
        KDFS_TRY(check_set_flags(op, has_policy_field(inode->policy, op.name())));
        if (op.value().empty()) {
            return Error(Errc::kInvalidArgument,
                         "'" + op.name() + "' needs a value; remove it to inherit");
        }
        return change_policy(view, *inode, op.name(), op.value(), context);
    }
    KDFS_TRY_ASSIGN(std::optional<std::string> old, find_xattr(view, *inode, op.name()));
    KDFS_TRY(check_set_flags(op, old.has_value()));
    uint32_t old_bytes = old ? xattr_bytes(op.name(), *old) : 0;
    KDFS_TRY(check_room(op, *inode, old_bytes));

    view.change(*inode, context.now);
    inode->xattr_bytes += xattr_bytes(op.name(), op.value()) - old_bytes;
    view.put(xattr_key(inode->ino, op.name()), encode_xattr(op.value()));
    return reply_attr(*inode);
}

Reply op_removexattr(View& view, const pb::RemoveXattr& op, const OpContext& context) {
    KDFS_TRY(check_xattr_name(op.name()));
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(InodeId(op.ino())));
    if (is_policy_name(op.name())) {
        return change_policy(view, *inode, op.name(), {}, context);
    }
    KDFS_TRY_ASSIGN(std::optional<std::string> old, find_xattr(view, *inode, op.name()));
    if (!old) {
        return no_xattr(inode->ino, op.name());
    }
    view.change(*inode, context.now);
    inode->xattr_bytes -= xattr_bytes(op.name(), *old);
    view.erase_key(xattr_key(inode->ino, op.name()));
    return reply_attr(*inode);
}

}  // namespace kdfs::mds
