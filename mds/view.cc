#include "mds/view.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace kdfs::mds {

View::View(Namespace& space) : space_(space) {
    space_.touched_.clear();
    space_.effects_ = Effects{};
}

Result<std::optional<std::string>> View::get(const std::string& key) {
    auto value = space_.store_.get(key);
    if (!value.ok() && value.error().code == Errc::kWouldBlock) {
        space_.missing_ = {key, {}, 1};
    }
    return value;
}

Result<std::vector<KvEntry>> View::scan(const std::string& first,
                                        const std::string& beyond,
                                        uint64_t entries_max) {
    auto entries = space_.store_.scan(first, beyond, entries_max);
    if (!entries.ok() && entries.error().code == Errc::kWouldBlock) {
        space_.missing_ = {first, beyond, entries_max};
    }
    return entries;
}

View::Slot* View::slot_of(InodeId ino) {
    for (Slot& slot : slots_) {
        if (slot.inode.ino == ino) {
            return &slot;
        }
    }
    return nullptr;
}

Result<std::optional<Inode>> View::load(InodeId ino) {
    std::string key = inode_key(ino);
    KDFS_TRY_ASSIGN(std::optional<std::string> value, get(key));
    if (!value) {
        return std::optional<Inode>();
    }
    KDFS_TRY_ASSIGN(Inode inode, decode_inode(key, *value));
    return std::optional<Inode>(std::move(inode));
}

Result<Inode*> View::inode(InodeId ino) {
    Slot* slot = slot_of(ino);
    if (slot != nullptr && !slot->erased) {
        return &slot->inode;
    }
    touch(ino, Access::kRead);
    std::optional<Inode> loaded;
    if (slot == nullptr) {
        KDFS_TRY_ASSIGN(loaded, load(ino));
    }
    if (!loaded) {
        return Error(Errc::kStaleHandle,
                     "inode " + std::to_string(ino.value) +
                         " is gone: it was removed meanwhile; look its name up again");
    }
    slots_.push_back({std::move(*loaded), false, false});
    return &slots_.back().inode;
}

Result<Inode*> View::inode_of(const Dentry& entry, InodeId parent, std::string_view name) {
    auto found = inode(entry.ino);
    if (!found.ok() && found.error().code == Errc::kStaleHandle) {
        return Error(Errc::kCorrupt,
                     "directory entry '" + describe_key(dentry_key(parent, name)) +
                         "' names inode " + std::to_string(entry.ino.value) +
                         ", which does not exist; run 'kdfs fsck'");
    }
    return found;
}

Result<Inode*> View::directory(InodeId ino) {
    KDFS_TRY_ASSIGN(Inode * found, inode(ino));
    if (!found->is_directory()) {
        return Error(Errc::kNotDirectory,
                     "inode " + std::to_string(ino.value) + " is not a directory");
    }
    return found;
}

Result<Inode*> View::live_directory(InodeId ino) {
    KDFS_TRY_ASSIGN(Inode * found, directory(ino));
    if (found->nlink == 0) {
        return Error(
            Errc::kNotFound,
            "directory " + std::to_string(ino.value) + " was removed: nothing can be made in it");
    }
    return found;
}

Result<Inode> View::peek(InodeId ino) {
    if (Slot* slot = slot_of(ino)) {
        return slot->inode;
    }
    KDFS_TRY_ASSIGN(std::optional<Inode> loaded, load(ino));
    if (!loaded) {
        return Error(Errc::kCorrupt,
                     "inode " + std::to_string(ino.value) +
                         " is the parent of a directory and does not exist; run 'kdfs fsck'");
    }
    return std::move(*loaded);
}

Result<std::optional<Inode>> View::peek_run(InodeId ino, uint64_t run) {
    auto loaded = load(ino);
    if (!loaded.ok() && loaded.error().code == Errc::kWouldBlock) {
        InodeId beyond(ino.value > UINT64_MAX - run ? UINT64_MAX : ino.value + run);
        space_.missing_ = {inode_key(ino), inode_key(beyond), run};
    }
    return loaded;
}

void View::touch(InodeId ino, Access access) {
    // An operation touches few inodes; only a page of a listing touches many, each once.
    constexpr size_t kSearched = 8;
    std::vector<Touched>& touched = space_.touched_;
    size_t first = touched.size() > kSearched && access == Access::kRead ? touched.size() : 0;
    for (size_t i = first; i < touched.size(); ++i) {
        if (touched[i].ino == ino) {
            touched[i].access = std::max(touched[i].access, access);
            return;
        }
    }
    touched.push_back({ino, access});
}

Result<std::optional<Dentry>> View::find(InodeId parent, std::string_view name) {
    std::string key = dentry_key(parent, name);
    KDFS_TRY_ASSIGN(std::optional<std::string> value, get(key));
    if (!value) {
        return std::optional<Dentry>();
    }
    KDFS_TRY_ASSIGN(Dentry found, decode_dentry(key, *value));
    return std::optional<Dentry>(found);
}

Result<Dentry> View::entry(InodeId parent, std::string_view name) {
    KDFS_TRY_ASSIGN(std::optional<Dentry> found, find(parent, name));
    if (!found) {
        return Error(Errc::kNotFound,
                     "no '" + std::string(name) + "' in directory " + std::to_string(parent.value));
    }
    return *found;
}

Status View::load_counters() {
    if (!counters_) {
        std::string key = counters_key();
        KDFS_TRY_ASSIGN(std::optional<std::string> value, get(key));
        if (!value) {
            return Error(Errc::kCorrupt,
                         "the metadata store has no counters: it was not formatted or lost them; "
                         "start kdfs-mds with the right directory or run 'kdfs fsck'");
        }
        KDFS_TRY_ASSIGN(counters_, decode_counters(key, *value));
    }
    return {};
}

Counts& View::change_counts() {
    KDFS_CHECK(counters_.has_value());
    counters_changed_ = true;
    return counters_->counts;
}

Result<Counters> View::read_counters() {
    KDFS_TRY(load_counters());
    return *counters_;
}

uint64_t View::next_id() {
    KDFS_CHECK(counters_.has_value());
    counters_changed_ = true;
    return counters_->next_id++;
}

Inode& View::make(uint32_t mode) {
    Slot& slot = slots_.emplace_back();
    slot.inode.ino = InodeId(next_id());
    slot.inode.mode = mode;
    ++change_counts().inodes;
    change(slot.inode);
    return slot.inode;
}

void View::change(Inode& inode) {
    touch(inode.ino, Access::kChange);
    Slot* slot = slot_of(inode.ino);
    KDFS_CHECK(slot != nullptr);
    if (!slot->changed) {
        slot->changed = true;
        ++inode.change;
    }
}

void View::change(Inode& inode, WallTime ctime) {
    change(inode);
    inode.ctime = ctime;
}

void View::erase(Inode& inode) {
    change(inode);
    Slot* slot = slot_of(inode.ino);
    KDFS_CHECK(!slot->erased);
    slot->erased = true;
    --change_counts().inodes;
}

void View::put(std::string key, std::string value) {
    pending_.put(std::move(key), std::move(value));
}

void View::erase_key(std::string key) { pending_.erase(std::move(key)); }

void View::erase_range(std::string first, std::string beyond) {
    pending_.erase_range(std::move(first), std::move(beyond));
}

void View::commit(KvBatch& batch) {
    for (const Slot& slot : slots_) {
        if (slot.erased) {
            batch.erase(inode_key(slot.inode.ino));
        } else if (slot.changed) {
            batch.put(inode_key(slot.inode.ino), encode(slot.inode));
        }
    }
    batch.append(std::move(pending_));
    if (counters_changed_) {
        batch.put(counters_key(), encode(*counters_));
    }
    if (forget_policies_) {
        space_.policy_cache_.clear();
    }
}

}  // namespace kdfs::mds
