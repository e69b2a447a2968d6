#include "client/inode_cache.h"

#include "kdfs/base/mutant.h"

#include <algorithm>
#include <utility>

namespace kdfs::client {

InodeRef InodeCache::find(InodeId ino) const {
    auto found = inodes_.find(ino);
    return found == inodes_.end() ? nullptr : found->second;
}

InodeRef InodeCache::get(InodeId ino) {
    InodeRef& entry = inodes_[ino];
    if (!entry) {
        entry = std::make_shared<Inode>();
        entry->ino = ino;
        outdate_names(*entry);
        entry->age = ages_.insert(ages_.end(), entry.get());
        entry->cap_seq = absent_floor_;
        auto capped = absent_caps_.find(ino);
        if (capped != absent_caps_.end()) {
            entry->cap_seq = capped->second.seq;
            entry->cap_mode = capped->second.mode;
            caps_by_seq_.erase({capped->second.seq, ino});
            absent_caps_.erase(capped);
        }
    }
    return entry;
}

void InodeCache::touch(Inode& inode) { ages_.splice(ages_.end(), ages_, inode.age); }

void InodeCache::erase(InodeId ino) {
    auto found = inodes_.find(ino);
    if (found == inodes_.end()) {
        return;
    }
    Inode& inode = *found->second;
    drop_names(inode);
    ages_.erase(inode.age);
    if (inode.cap_seq != 0) {
        cap_absent(ino, inode.cap_seq, inode.cap_mode);
    }
    inodes_.erase(found);
}

std::vector<InodeRef> InodeCache::sorted() const {
    std::vector<InodeRef> out;
    out.reserve(inodes_.size());
    for (const auto& [ino, inode] : inodes_) {
        out.push_back(inode);
    }
    std::sort(out.begin(), out.end(), [](const InodeRef& a, const InodeRef& b) {
        return a->ino < b->ino;
    });
    return out;
}

std::vector<InodeRef> InodeCache::oldest_first() const {
    std::vector<InodeRef> out;
    out.reserve(inodes_.size());
    for (const Inode* inode : ages_) {
        out.push_back(inodes_.find(inode->ino)->second);
    }
    return out;
}

std::vector<InodeRef> InodeCache::idle(size_t count, size_t look) const {
    std::vector<InodeRef> out;
    for (Inode* inode : ages_) {
        if (out.size() >= count || look-- == 0) {
            break;
        }
        auto found = inodes_.find(inode->ino);
        bool used = found->second.use_count() > 1 || inode->opens != 0;
        if (!used && !inode->dirty() && !inode->untold_error() && inode->unsynced.empty() &&
            inode->ino != kRootInode) {
            out.push_back(found->second);
        }
    }
    return out;
}

void InodeCache::adopt_attr(Inode& inode, const pb::Attr& attr) {
    bool older = attr.change() < inode.attr.change();
    bool before_cut = inode.size_dirty && attr.cut() < inode.attr.cut();
    if ((inode.lease != pb::LEASE_NONE && older) || before_cut) {
        return;
    }
    uint64_t size = inode.attr.size();
    int64_t mtime = inode.attr.mtime();
    int64_t ctime = inode.attr.ctime();
    int64_t atime = inode.attr.atime();
    bool knows_size = attr.cut() > inode.attr.cut() || attr.size() >= size;
    // Without the lease others may change the times once the server has taken ours, which counts as
    // a change.
    bool ours = inode.lease == pb::LEASE_EXCLUSIVE || attr.change() <= inode.attr.change();
    inode.attr = attr;
    inode.size_dirty = inode.size_dirty && !knows_size;
    inode.times_dirty = inode.times_dirty && ours;
    if (inode.size_dirty) {
        inode.attr.set_size(size);
    }
    if (inode.times_dirty) {
        inode.attr.set_mtime(mtime);
        inode.attr.set_atime(atime);
        inode.attr.set_ctime(std::max<int64_t>(ctime, attr.ctime()));
    }
}

void InodeCache::adopt_grant(Inode& inode, const pb::Grant& grant) {
    // One that is not known grants nothing.
    pb::LeaseMode mode = pb::LeaseMode_IsValid(grant.mode()) ? grant.mode() : pb::LEASE_NONE;
    if (grant.lease_seq() <= inode.cap_seq) {
        mode = std::min(mode, inode.cap_mode);
    }
    if (grant.lease_seq() < inode.lease_seq) {
        return;  // A newer one has said what there is.
    }
    bool newer = grant.lease_seq() > inode.lease_seq;
    inode.lease_seq = grant.lease_seq();
    if (mode > inode.lease || (newer && inode.lease == pb::LEASE_READ)) {
        inode.lease = mode;
    }
    if (inode.lease == pb::LEASE_EXCLUSIVE) {
        inode.writes_through = 0;
    }
}

void InodeCache::cap(Inode& inode, uint64_t seq, pb::LeaseMode keep) {
    if (seq > inode.cap_seq) {
        inode.cap_seq = seq;
        inode.cap_mode = keep;
    } else if (seq == inode.cap_seq) {
        inode.cap_mode = std::min(inode.cap_mode, keep);
    }
    if (seq >= inode.lease_seq) {
        inode.lease = std::min(inode.lease, keep);
    }
    inode.unwritten = inode.unwritten && inode.lease == pb::LEASE_EXCLUSIVE;
}

void InodeCache::cap_absent(InodeId ino, uint64_t seq, pb::LeaseMode keep) {
    if (seq <= absent_floor_ || mutant("forget_overtaken_recall")) {
        return;
    }
    auto [it, added] = absent_caps_.try_emplace(ino);
    Cap& entry = it->second;
    if (seq > entry.seq) {
        caps_by_seq_.erase({entry.seq, ino});
        caps_by_seq_.emplace(seq, ino);
        entry.seq = seq;
        entry.mode = keep;
    } else if (seq == entry.seq) {
        entry.mode = std::min(entry.mode, keep);
    }
    if (absent_caps_.size() > kAbsentCapsMax) {
        auto oldest = caps_by_seq_.begin();
        absent_floor_ = oldest->first;
        absent_caps_.erase(oldest->second);
        caps_by_seq_.erase(oldest);
    }
}

void InodeCache::forget_caps() {
    absent_caps_.clear();
    caps_by_seq_.clear();
    absent_floor_ = 0;
}

void InodeCache::set_name(Inode& directory, const std::string& name, InodeId ino) {
    auto [it, added] = directory.names.insert_or_assign(name, ino);
    names_ += added ? 1 : 0;
}

void InodeCache::forget_name(Inode& directory, const std::string& name) {
    names_ -= directory.names.erase(name);
    directory.names_complete = false;
    outdate_names(directory);
}

void InodeCache::drop_names(Inode& directory) {
    names_ -= directory.names.size();
    directory.names.clear();
    directory.names_complete = false;
    outdate_names(directory);
}

void InodeCache::shrink_names(size_t most) {
    for (auto it = ages_.begin(); it != ages_.end() && names_ > most; ++it) {
        if (!(*it)->names.empty()) {
            drop_names(**it);
        }
    }
}

std::string InodeCache::known_path(InodeId ino) const {
    if (names_ > kNamesSearchedMax) {
        return {};
    }
    std::vector<InodeRef> all = sorted();
    std::string path;
    for (int i = 0; i < kPathDepthMax && ino != kRootInode; ++i) {
        InodeId parent;
        std::string name;
        for (const InodeRef& directory : all) {
            for (const auto& [known, child] : directory->names) {
                // Of several names the smallest, so that equal caches give equal messages.
                if (child == ino && (!parent || (directory->ino == parent && known < name))) {
                    parent = directory->ino;
                    name = known;
                }
            }
        }
        if (!parent) {
            return path.empty() ? path : "..." + path;
        }
        path.insert(0, "/").insert(1, name);
        ino = parent;
    }
    return path;
}

}  // namespace kdfs::client
