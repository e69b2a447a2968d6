#include "kdfs/proto/layout.h"
#include "mds/ops.h"

#include <charconv>
#include <optional>
#include <utility>

namespace kdfs::mds {
namespace {

enum class Field : uint8_t { kChunkSize, kWidth, kReplicas, kPlacement };

// The field a name stands for, whatever namespace it came in.
std::optional<Field> field_of(std::string_view name) {
    for (std::string_view prefix : {"user.", "trusted."}) {
        if (name.substr(0, prefix.size()) == prefix) {
            name.remove_prefix(prefix.size());
            break;
        }
    }
    if (name == "kdfs.chunk_size") {
        return Field::kChunkSize;
    }
    if (name == "kdfs.width") {
        return Field::kWidth;
    }
    if (name == "kdfs.replicas") {
        return Field::kReplicas;
    }
    if (name == "kdfs.placement") {
        return Field::kPlacement;
    }
    return std::nullopt;
}

bool has_field(const pb::Policy& policy, Field field) {
    switch (field) {
        case Field::kChunkSize:
            return policy.chunk_bytes() != 0;
        case Field::kWidth:
            return policy.width() != 0;
        case Field::kReplicas:
            return policy.replicas() != 0;
        case Field::kPlacement:
            return policy.has_placement();
    }
    return false;
}

std::string format_field(const pb::Policy& policy, Field field) {
    switch (field) {
        case Field::kChunkSize:
            return std::to_string(policy.chunk_bytes());
        case Field::kWidth:
            return std::to_string(policy.width());
        case Field::kReplicas:
            return std::to_string(policy.replicas());
        case Field::kPlacement:
            return policy.placement() == pb::PLACEMENT_LOCAL ? "local" : "striped";
    }
    return {};
}

void clear_field(pb::Policy& policy, Field field) {
    switch (field) {
        case Field::kChunkSize:
            policy.clear_chunk_bytes();
            break;
        case Field::kWidth:
            policy.clear_width();
            break;
        case Field::kReplicas:
            policy.clear_replicas();
            break;
        case Field::kPlacement:
            policy.clear_placement();
            break;
    }
}

// Sets what `policy` leaves open.
void inherit(pb::Policy& policy, const pb::Policy& from) {
    if (policy.chunk_bytes() == 0) {
        policy.set_chunk_bytes(from.chunk_bytes());
    }
    if (policy.width() == 0) {
        policy.set_width(from.width());
    }
    if (policy.replicas() == 0) {
        policy.set_replicas(from.replicas());
    }
    if (!policy.has_placement() && from.has_placement()) {
        policy.set_placement(from.placement());
    }
}

pb::Policy policy_of_layout(const pb::Layout& layout) {
    pb::Policy policy;
    policy.set_chunk_bytes(layout.chunk_bytes());
    policy.set_width(layout.width());
    policy.set_replicas(layout.replicas());
    policy.set_placement(layout.placement());
    return policy;
}

// "1048576", "64K", "4M"; nothing for anything else.
std::optional<uint64_t> parse_number(std::string_view text, bool with_unit) {
    uint64_t value = 0;
    auto [rest, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
    std::string_view unit(rest, static_cast<size_t>(text.data() + text.size() - rest));
    if (failure != std::errc()) {
        return std::nullopt;
    }
    uint64_t factor = 1;
    if (with_unit && (unit == "K" || unit == "KiB")) {
        factor = KiB;
    } else if (with_unit && (unit == "M" || unit == "MiB")) {
        factor = MiB;
    } else if (!unit.empty()) {
        return std::nullopt;
    }
    return value > kFileBytesMax / factor ? std::nullopt : std::optional(value * factor);
}

Result<uint32_t> parse_count(std::string_view name, std::string_view text, uint32_t count_max) {
    std::optional<uint64_t> value = parse_number(text, false);
    if (!value || *value == 0 || *value > count_max) {
        return Error(Errc::kInvalidArgument,
                     "'" + std::string(name) + "' cannot be '" + std::string(text) +
                         "': a number from 1 to " + std::to_string(count_max) + " is needed");
    }
    return static_cast<uint32_t>(*value);
}

Result<pb::Placement> parse_placement(std::string_view name, std::string_view text) {
    if (text == "striped") {
        return pb::PLACEMENT_STRIPED;
    }
    if (text == "local") {
        return pb::PLACEMENT_LOCAL;
    }
    return Error(Errc::kInvalidArgument,
                 "'" + std::string(name) + "' cannot be '" + std::string(text) +
                     "': it is 'striped' or 'local'");
}

Result<uint64_t> parse_chunk_size(std::string_view name, std::string_view text) {
    std::optional<uint64_t> value = parse_number(text, true);
    if (!value || !check_chunk_bytes(*value).ok()) {
        return Error(Errc::kInvalidArgument,
                     "'" + std::string(name) + "' cannot be '" + std::string(text) +
                         "': a power of two from 64K to 64M is needed");
    }
    return *value;
}

}  // namespace

bool is_policy_name(std::string_view name) { return field_of(name).has_value(); }

bool has_policy_field(const pb::Policy& policy, std::string_view name) {
    std::optional<Field> field = field_of(name);
    return field && has_field(policy, *field);
}

Status set_policy_field(pb::Policy& policy, std::string_view name, std::string_view value) {
    std::optional<Field> field = field_of(name);
    KDFS_CHECK(field.has_value());
    if (value.empty()) {
        clear_field(policy, *field);
        return {};
    }
    switch (*field) {
        case Field::kChunkSize: {
            KDFS_TRY_ASSIGN(uint64_t bytes, parse_chunk_size(name, value));
            policy.set_chunk_bytes(bytes);
            break;
        }
        case Field::kWidth: {
            KDFS_TRY_ASSIGN(uint32_t width, parse_count(name, value, kWidthMax));
            policy.set_width(width);
            break;
        }
        case Field::kReplicas: {
            KDFS_TRY_ASSIGN(uint32_t replicas, parse_count(name, value, kReplicasMax));
            policy.set_replicas(replicas);
            break;
        }
        case Field::kPlacement: {
            KDFS_TRY_ASSIGN(pb::Placement placement, parse_placement(name, value));
            policy.set_placement(placement);
            break;
        }
    }
    return {};
}

Result<pb::Policy> effective_policy(View& view, const Inode& directory) {
    auto cached = view.policies().find(directory.ino);
    if (cached != view.policies().end()) {
        return cached->second;
    }
    pb::Policy policy = directory.policy;
    InodeId at = directory.ino;
    InodeId above = directory.parent;
    for (uint64_t depth = 0; at != kRootInode; ++depth) {
        if (depth == Namespace::kDepthMax) {
            return Error(Errc::kCorrupt,
                         "directory " + std::to_string(directory.ino.value) +
                             " has no way up to the root; run 'kdfs fsck'");
        }
        at = above;
        cached = view.policies().find(at);
        if (cached != view.policies().end()) {
            inherit(policy, cached->second);
            break;
        }
        KDFS_TRY_ASSIGN(Inode ancestor, view.peek(at));
        inherit(policy, ancestor.policy);
        above = ancestor.parent;
    }
    if (view.policies().size() >= Namespace::kPolicyCacheMax) {
        view.policies().clear();
    }
    view.policies().emplace(directory.ino, policy);
    return policy;
}

Result<std::string> get_policy_xattr(View& view, const Inode& inode, std::string_view name) {
    pb::Policy policy;
    if (inode.is_regular()) {
        policy = policy_of_layout(inode.layout);
    } else if (inode.is_directory()) {
        KDFS_TRY_ASSIGN(policy, effective_policy(view, inode));
    }
    std::optional<Field> field = field_of(name);
    if (!field || !has_field(policy, *field)) {
        return Error(Errc::kNoData,
                     "inode " + std::to_string(inode.ino.value) + " has no policy '" +
                         std::string(name) + "'");
    }
    return format_field(policy, *field);
}

Reply op_get_policy(View& view, const pb::GetPolicy& op) {
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(InodeId(op.ino())));
    pb::MetaReply reply;
    if (inode->is_regular()) {
        *reply.mutable_policy() = policy_of_layout(inode->layout);
    } else if (inode->is_directory()) {
        KDFS_TRY_ASSIGN(*reply.mutable_policy(), effective_policy(view, *inode));
        *reply.mutable_own_policy() = inode->policy;
    }
    fill_attr(*inode, *reply.mutable_attr());
    return reply;
}

}  // namespace kdfs::mds
