#include "tests/sim/tree_model.h"

#include "kdfs/base/check.h"

#include <algorithm>
#include <utility>

namespace kdfs::sim {

bool ModelInode::empty() const {
    return std::all_of(names.begin(), names.end(), [](const auto& name) {
        return name.second.inode == nullptr;
    });
}

TreeModel::TreeModel() { root_ = add(kRootInode.value, ModelKind::kDirectory); }

ModelRef TreeModel::add(uint64_t ino, ModelKind kind) {
    auto inode = std::make_shared<ModelInode>();
    inode->ino = ino;
    inode->kind = kind;
    inodes_[ino] = inode;
    return inode;
}

std::vector<ModelRef> TreeModel::directories() const {
    std::vector<ModelRef> out;
    for (const auto& [ino, weak] : inodes_) {
        ModelRef inode = weak.lock();
        if (inode && inode->kind == ModelKind::kDirectory && !inode->removed) {
            out.push_back(std::move(inode));
        }
    }
    return out;
}

std::vector<ModelRef> TreeModel::files() {
    std::vector<ModelRef> out;
    for (const auto& [ino, weak] : inodes_) {
        ModelRef inode = weak.lock();
        if (inode && inode->kind == ModelKind::kFile) {
            out.push_back(std::move(inode));
        }
    }
    return out;
}

void TreeModel::for_each_file(const std::function<void(ModelInode&)>& call) {
    for (const ModelRef& file : files()) {
        call(*file);
    }
}

bool TreeModel::below(const ModelInode* inode, const ModelInode* ancestor) {
    for (; inode != nullptr; inode = inode->parent) {
        if (inode == ancestor) {
            return true;
        }
    }
    return false;
}

bool TreeModel::hold(Change& change) {
    for (Change::Place& place : change.places) {
        place.entry = &place.directory->names[place.name];
        if (place.entry->held || place.directory->closing || place.directory->removed) {
            return false;
        }
    }
    if (change.closing && (change.closing->closing || change.closing->changing != 0)) {
        return false;
    }
    if (change.moves_directory && moving_directory_) {
        return false;
    }
    for (const ModelRef& inode : change.inodes) {
        if (inode->links_unsure != 0) {
            return false;
        }
    }
    for (Change::Place& place : change.places) {
        place.entry->held = true;
        ++place.entry->version;
        ++place.directory->changing;
    }
    if (change.closing) {
        change.closing->closing = true;
    }
    moving_directory_ |= change.moves_directory;
    for (ModelRef& inode : change.inodes) {
        ++inode->links_unsure;
        ++inode->links_version;
    }
    return true;
}

void TreeModel::let_go(Change& change) {
    for (Change::Place& place : change.places) {
        place.entry->held = false;
        ++place.entry->version;
        --place.directory->changing;
    }
    if (change.closing) {
        change.closing->closing = false;
    }
    if (change.moves_directory) {
        moving_directory_ = false;
    }
    for (ModelRef& inode : change.inodes) {
        --inode->links_unsure;
        ++inode->links_version;
    }
}

void TreeModel::settle(Change& change, size_t outcome, const std::vector<uint64_t>& found) {
    KDFS_CHECK(outcome < change.outcomes.size());
    if (change.outcomes[outcome].apply) {
        change.outcomes[outcome].apply(found);
    }
    let_go(change);
}

void TreeModel::doubt(Change change, TimePoint now) {
    change.doubt_since = now;
    doubts_.push_back(std::move(change));
}

bool TreeModel::take_doubt(TimePoint before, Change& change) {
    for (auto at = doubts_.begin(); at != doubts_.end(); ++at) {
        if (at->doubt_since <= before) {
            change = std::move(*at);
            doubts_.erase(at);
            return true;
        }
    }
    return false;
}

}  // namespace kdfs::sim
