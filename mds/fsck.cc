#include "mds/fsck.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace kdfs::mds {
namespace {

constexpr uint64_t kPageEntries = 4096;

std::string name_of(uint64_t ino) { return "inode " + std::to_string(ino); }

std::string differs(std::string_view what, uint64_t recorded, uint64_t found) {
    return std::string(what) + " is recorded as " + std::to_string(recorded) + " and found as " +
           std::to_string(found);
}

}  // namespace

void NamespaceCheck::problem(std::string text) {
    ++report_.problem_count;
    if (report_.problems.size() < kProblemsMax) {
        report_.problems.push_back(std::move(text));
    }
}

void NamespaceCheck::add(std::string_view key, std::string_view value) {
    Status added = add_record(key, value);
    if (!added.ok()) {
        problem(added.error().detail);
    }
}

Status NamespaceCheck::add_record(std::string_view key, std::string_view value) {
    if (key.empty()) {
        return Error(Errc::kCorrupt, "a record has an empty key");
    }
    switch (static_cast<Table>(key[0])) {
        case Table::kCounters: {
            KDFS_TRY_ASSIGN(recorded_, decode_counters(key, value));
            counters_seen_ = true;
            break;
        }
        case Table::kInode: {
            KDFS_TRY_ASSIGN(Inode inode, decode_inode(key, value));
            add_inode(inode);
            break;
        }
        case Table::kDentry:
            return add_name(key, value);
        case Table::kXattr:
            return add_xattr(key, value);
        case Table::kOrphan: {
            KDFS_TRY_ASSIGN(uint64_t ino, parse_number_key(key));
            inodes_[ino].orphan = true;
            ++report_.counts.orphans;
            break;
        }
        case Table::kDeadData: {
            KDFS_TRY_ASSIGN(DeadData dead, decode_dead_data(key, value));
            ++report_.counts.gc_queued;
            add_data({dead.data, dead.layout, dead.size_bytes, InodeId()});
            break;
        }
        case Table::kTrim: {
            KDFS_TRY(decode_trim(key, value));
            ++report_.counts.trims;
            break;
        }
        case Table::kReply: {
            KDFS_TRY(decode_reply(key, value));
            break;
        }
        case Table::kManager:
        case Table::kSession:
            break;
    }
    return {};
}

void NamespaceCheck::add_inode(const Inode& inode) {
    Seen& seen = inodes_[inode.ino.value];
    seen.exists = true;
    seen.mode = inode.mode;
    seen.nlink = inode.nlink;
    seen.size = inode.size;
    seen.xattr_bytes = inode.xattr_bytes;
    seen.parent = inode.parent;
    highest_id_ = std::max(highest_id_, inode.ino.value);
    ++report_.counts.inodes;
    report_.directories += inode.is_directory() ? 1 : 0;
    if (inode.is_regular()) {
        ++report_.regular_files;
        add_data({inode.data, inode.layout, inode.size, inode.ino});
    }
}

void NamespaceCheck::add_data(OwnedData owned) {
    highest_id_ = std::max(highest_id_, owned.data.value);
    uint64_t data = owned.data.value;
    auto [at, fresh] = owned_.emplace(data, std::move(owned));
    if (!fresh) {
        problem("data " + std::to_string(data) + " belongs to " + name_of(at->second.ino.value) +
                " and to something else (0: the gc queue)");
    }
}

Status NamespaceCheck::add_name(std::string_view key, std::string_view value) {
    KDFS_TRY_ASSIGN(NamedKey name, parse_named_key(key));
    KDFS_TRY_ASSIGN(Dentry dentry, decode_dentry(key, value));
    Seen& child = inodes_[dentry.ino.value];
    ++child.names;
    child.named_in = InodeId(name.number);
    child.mode_in_names = dentry.mode;
    Seen& parent = inodes_[name.number];
    ++parent.entries;
    parent.subdirectories += S_ISDIR(dentry.mode) ? 1 : 0;
    return {};
}

Status NamespaceCheck::add_xattr(std::string_view key, std::string_view value) {
    KDFS_TRY_ASSIGN(NamedKey name, parse_named_key(key));
    KDFS_TRY_ASSIGN(std::string content, decode_xattr(key, value));
    inodes_[name.number].xattr_bytes_found += name.name.size() + content.size();
    return {};
}

void NamespaceCheck::check_inode(uint64_t ino, const Seen& seen) {
    if (!seen.exists) {
        if (seen.names != 0) {
            problem(std::to_string(seen.names) + " names stand for " + name_of(ino) +
                    ", which does not exist; the last is in directory " +
                    std::to_string(seen.named_in.value));
        }
        if (seen.entries != 0) {
            problem(std::to_string(seen.entries) + " names are in directory " +
                    std::to_string(ino) + ", which does not exist");
        }
        if (seen.orphan || seen.xattr_bytes_found != 0) {
            problem("an orphan record or extended attributes are left of " + name_of(ino));
        }
        return;
    }
    if (seen.xattr_bytes != seen.xattr_bytes_found) {
        problem(name_of(ino) + ": " +
                differs("the size of its xattrs", seen.xattr_bytes, seen.xattr_bytes_found));
    }
    if (seen.names != 0 && (seen.mode & S_IFMT) != seen.mode_in_names) {
        problem(name_of(ino) + " has another type than its name says");
    }
    if (S_ISDIR(seen.mode)) {
        check_directory(ino, seen);
        return;
    }
    if (seen.entries != 0) {
        problem(name_of(ino) + " is no directory and has entries");
    }
    if (seen.nlink != seen.names) {
        problem(name_of(ino) + ": " + differs("its number of links", seen.nlink, seen.names));
    }
    if (seen.orphan != (seen.nlink == 0)) {
        problem(name_of(ino) + (seen.orphan ? " has links and an orphan record"
                                            : " has neither a name nor an orphan record"));
    }
}

void NamespaceCheck::check_directory(uint64_t ino, const Seen& seen) {
    if (seen.size != seen.entries) {
        problem(name_of(ino) + ": " + differs("its number of entries", seen.size, seen.entries));
    }
    if (seen.orphan) {
        if (seen.nlink != 0 || seen.names != 0 || seen.entries != 0) {
            problem("directory " + std::to_string(ino) + " is an orphan and in use");
        }
        return;
    }
    if (seen.nlink != seen.subdirectories + 2) {
        problem(name_of(ino) + ": " +
                differs("its number of links", seen.nlink, seen.subdirectories + 2));
    }
    bool root = ino == kRootInode.value;
    if (seen.names != (root ? 0U : 1U)) {
        problem("directory " + std::to_string(ino) + " has " + std::to_string(seen.names) +
                " names");
    } else if (!root && seen.named_in != seen.parent) {
        problem("directory " + std::to_string(ino) + ": " +
                differs("its parent", seen.parent.value, seen.named_in.value));
    }
}

// Every directory reaches the root: those that were reached once need no second walk.
void NamespaceCheck::check_tree() {
    std::map<uint64_t, bool> reaches;
    reaches[kRootInode.value] = true;
    for (const auto& [ino, seen] : inodes_) {
        if (!seen.exists || !S_ISDIR(seen.mode)) {
            continue;
        }
        std::vector<uint64_t> path;
        uint64_t at = ino;
        while (!reaches.contains(at)) {
            // Taken for lost until proven otherwise: that is also what ends a cycle.
            reaches[at] = false;
            path.push_back(at);
            auto next = inodes_.find(at);
            at = next == inodes_.end() ? 0 : next->second.parent.value;
        }
        if (reaches[at]) {
            for (uint64_t passed : path) {
                reaches[passed] = true;
            }
        } else if (!path.empty()) {
            problem("directory " + std::to_string(ino) + " has no way up to the root");
        }
    }
}

void NamespaceCheck::check_counters() {
    if (!counters_seen_) {
        problem("the counters record is missing");
        return;
    }
    const Counts& recorded = recorded_.counts;
    const Counts& found = report_.counts;
    if (recorded_.next_id <= highest_id_) {
        problem("the next id is " + std::to_string(recorded_.next_id) + " and " +
                std::to_string(highest_id_) + " is in use already");
    }
    if (recorded.inodes != found.inodes) {
        problem(differs("the number of inodes", recorded.inodes, found.inodes));
    }
    if (recorded.orphans != found.orphans) {
        problem(differs("the number of orphans", recorded.orphans, found.orphans));
    }
    if (recorded.gc_queued != found.gc_queued) {
        problem(differs("the length of the gc queue", recorded.gc_queued, found.gc_queued));
    }
    if (recorded.trims != found.trims) {
        problem(differs("the number of trims", recorded.trims, found.trims));
    }
}

NamespaceReport NamespaceCheck::finish() {
    auto root = inodes_.find(kRootInode.value);
    if (root == inodes_.end() || !root->second.exists || !S_ISDIR(root->second.mode)) {
        problem("the root directory is missing");
    }
    for (const auto& [ino, seen] : inodes_) {
        check_inode(ino, seen);
    }
    check_tree();
    check_counters();
    report_.owned.reserve(owned_.size());
    for (auto& [data, owned] : owned_) {
        report_.owned.push_back(std::move(owned));
    }
    owned_.clear();
    return std::move(report_);
}

Task<Result<NamespaceReport>> check_namespace(KvStore& store) {
    NamespaceCheck check;
    std::string first;
    for (;;) {
        std::string beyond;
        auto page = store.scan(first, beyond, kPageEntries);
        if (!page.ok() && page.error().code == Errc::kWouldBlock) {
            KDFS_CO_TRY(co_await store.load_range(first, beyond, kPageEntries));
            continue;
        }
        KDFS_CO_TRY_ASSIGN(std::vector<KvEntry> entries, std::move(page));
        for (const KvEntry& entry : entries) {
            check.add(entry.key, entry.value);
        }
        if (entries.size() < kPageEntries) {
            break;
        }
        first = entries.back().key;
        first.push_back('\0');
    }
    co_return check.finish();
}

}  // namespace kdfs::mds
