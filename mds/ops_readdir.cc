#include "mds/ops.h"

#include <algorithm>
#include <utility>

namespace kdfs::mds {
namespace {

// A cold listing loads inodes in runs, since those of one directory were mostly made in a row.
constexpr uint64_t kInodeRun = 256;

// Without attributes.
Status add_entry(std::string_view key, std::string_view value, pb::DirEntry& out) {
    KDFS_TRY_ASSIGN(NamedKey name, parse_named_key(key));
    KDFS_TRY_ASSIGN(Dentry dentry, decode_dentry(key, value));
    out.set_name(std::string(name.name));
    out.set_ino(dentry.ino.value);
    out.set_mode(dentry.mode);
    return {};
}

Status add_attr(View& view, InodeId parent, pb::DirEntry& out) {
    InodeId ino(out.ino());
    auto loaded = view.peek_run(ino, kInodeRun);
    if (!loaded.ok()) {
        return std::move(loaded).error();
    }
    if (!loaded->has_value()) {
        return Error(Errc::kCorrupt,
                     "directory entry '" + describe_key(dentry_key(parent, out.name())) +
                         "' names an inode that does not exist; run 'kdfs fsck'");
    }
    view.touch(ino, Access::kRead);
    fill_attr(**loaded, *out.mutable_attr());
    return {};
}

}  // namespace

Reply op_readdir(View& view, const pb::ReadDir& op) {
    if (op.after().size() > kNameBytesMax) {
        return Error(Errc::kInvalidArgument, "a listing goes on after a name that is too long");
    }
    KDFS_TRY_ASSIGN(Inode * directory, view.directory(InodeId(op.ino())));
    uint64_t limit = Namespace::kReadDirEntriesMax;
    if (op.entries_max() != 0) {
        limit = std::min<uint64_t>(limit, op.entries_max());
    }
    // The first key above a name is the name with a zero byte, which no name has.
    std::string first = dentry_key(directory->ino, op.after());
    if (!op.after().empty()) {
        first.push_back('\0');
    }
    KDFS_TRY_ASSIGN(std::vector<KvEntry> found,
                    view.scan(first, dentries_end(directory->ino), limit));
    pb::MetaReply reply;
    reply.set_eof(found.size() < limit);
    reply.mutable_entries()->Reserve(static_cast<int>(found.size()));
    uint64_t bytes = 0;
    for (const KvEntry& record : found) {
        pb::DirEntry& out = *reply.add_entries();
        KDFS_TRY(add_entry(record.key, record.value, out));
        if (op.attrs()) {
            KDFS_TRY(add_attr(view, directory->ino, out));
        }
        bytes += out.ByteSizeLong();
        if (bytes >= Namespace::kReadDirBytesMax) {
            reply.set_eof(reply.eof() && &record == &found.back());
            break;
        }
    }
    fill_attr(*directory, *reply.mutable_parent());
    return reply;
}

}  // namespace kdfs::mds
