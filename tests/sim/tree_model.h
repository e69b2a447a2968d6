#pragma once

#include "kdfs/base/types.h"
#include "tests/sim/file_history.h"

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace kdfs::sim {

// The oracle of the tree. Operations that change it hold what they change, and an operation that
// would need what another holds picks something else; so what an operation must find is known
// exactly. One whose outcome is unknown (its client died, its session was lost) leaves a Doubt,
// which keeps hold of the names until somebody looks.

enum class ModelKind { kFile, kDirectory, kSymlink };

struct ModelInode;
using ModelRef = std::shared_ptr<ModelInode>;

struct ModelName {
    ModelRef inode;  // null: absent
    bool held = false;
    // Goes up when somebody takes hold and when he lets go: an operation that only looks compares.
    uint64_t version = 0;
};

struct ModelInode {
    uint64_t ino = 0;
    ModelKind kind = ModelKind::kFile;
    uint64_t links = 1;
    // Changes of the link count under way or unknown; and how often there was one.
    int links_unsure = 0;
    uint64_t links_version = 0;
    std::string target;  // of a symlink

    // Regular files. `users` read and write now; a truncation needs the file for itself.
    FileHistory history;
    int users = 0;
    bool exclusive = false;
    // The truncation's outcome is unknown, and it cannot come later than this.
    TimePoint exclusive_until = TimePoint::max();

    // Directories. Names that were ever tried stay, with a null inode.
    std::map<std::string, ModelName> names;
    ModelInode* parent = nullptr;
    int changing = 0;      // operations in here
    bool closing = false;  // an rmdir of this is under way or unknown
    bool removed = false;

    bool empty() const;
};

// What one outcome of an operation shows in the names it holds, and what it makes of the model.
struct Outcome {
    static constexpr uint64_t kAbsent = 0;
    static constexpr uint64_t kNew = ~uint64_t{0};  // some inode that nobody knew
    // One for each held name.
    std::vector<uint64_t> shows;
    std::function<void(const std::vector<uint64_t>& found)> apply;
};

// Names (and inodes) that one operation holds, and the outcomes it may have; the first is that
// nothing happened.
struct Change {
    struct Place {
        ModelRef directory;
        std::string name;
        ModelName* entry = nullptr;
    };
    std::vector<Place> places;
    std::vector<Outcome> outcomes;
    // Their link counts change.
    std::vector<ModelRef> inodes;
    // An rmdir holds this too.
    ModelRef closing;
    bool moves_directory = false;
    TimePoint doubt_since{};
    std::string what;
};

class TreeModel {
public:
    TreeModel();

    ModelRef root() const { return root_; }
    // Directories that exist, in the order they were made; and files with or without a name.
    std::vector<ModelRef> directories() const;
    std::vector<ModelRef> files();
    // Every file that may still have readers or writers.
    void for_each_file(const std::function<void(ModelInode&)>& call);
    ModelRef add(uint64_t ino, ModelKind kind);
    bool known(uint64_t ino) const { return inodes_.contains(ino); }
    // True if `inode` is `ancestor` or lies below it.
    static bool below(const ModelInode* inode, const ModelInode* ancestor);

    // Takes hold; false (and nothing held) if something is held already.
    bool hold(Change& change);
    // The outcome is known: applies it and lets go.
    void settle(Change& change, size_t outcome, const std::vector<uint64_t>& found);
    // Nobody knows: keeps hold and remembers it.
    void doubt(Change change, TimePoint now);
    // Gives the oldest doubt that began before `before`, if nobody else works on it.
    bool take_doubt(TimePoint before, Change& change);
    size_t doubts() const { return doubts_.size(); }

private:
    void let_go(Change& change);

    ModelRef root_;
    std::map<uint64_t, std::weak_ptr<ModelInode>> inodes_;
    std::list<Change> doubts_;
    bool moving_directory_ = false;
};

}  // namespace kdfs::sim
