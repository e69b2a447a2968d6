#include "kdfs/base/random.h"
#include "tests/unit/mds_support.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace kdfs::mds::testing {
namespace {

// What a file system should do, said as plainly as possible: a graph of nodes.
struct Node {
    uint32_t type = S_IFREG;
    uint64_t size = 0;
    uint32_t links = 0;
    std::map<std::string, uint64_t> entries;  // of a directory
    uint64_t parent = 0;
};

class Model {
public:
    Model() { nodes_[1].type = S_IFDIR, nodes_[1].parent = 1; }

    std::string create(uint64_t dir, const std::string& name, uint32_t type, uint64_t ino);
    std::string link(uint64_t ino, uint64_t dir, const std::string& name);
    std::string remove(uint64_t dir, const std::string& name, bool directory);
    std::string rename(uint64_t from,
                       const std::string& name,
                       uint64_t to,
                       const std::string& new_name,
                       uint32_t flags);
    std::string set_size(uint64_t ino, uint64_t size);

    const std::map<uint64_t, Node>& nodes() const { return nodes_; }

private:
    bool is_dir(uint64_t ino) { return nodes_[ino].type == S_IFDIR; }
    bool below(uint64_t ino, uint64_t ancestor);
    void drop(uint64_t ino);
    std::string rename_checks(uint64_t from, uint64_t to, uint64_t source, uint64_t target);

    std::map<uint64_t, Node> nodes_;
};

std::string Model::create(uint64_t dir, const std::string& name, uint32_t type, uint64_t ino) {
    if (!nodes_.contains(dir)) {
        return "StaleHandle";
    }
    if (!is_dir(dir)) {
        return "NotDirectory";
    }
    if (nodes_[dir].entries.contains(name)) {
        return "Exists";
    }
    nodes_[dir].entries[name] = ino;
    nodes_[ino].type = type;
    nodes_[ino].links = 1;
    nodes_[ino].parent = dir;
    return "ok";
}

std::string Model::link(uint64_t ino, uint64_t dir, const std::string& name) {
    if (!nodes_.contains(ino) || !nodes_.contains(dir)) {
        return "StaleHandle";
    }
    if (!is_dir(dir)) {
        return "NotDirectory";
    }
    if (nodes_[dir].entries.contains(name)) {
        return "Exists";
    }
    if (is_dir(ino)) {
        return "NotPermitted";
    }
    nodes_[dir].entries[name] = ino;
    ++nodes_[ino].links;
    return "ok";
}

void Model::drop(uint64_t ino) {
    if (--nodes_[ino].links == 0) {
        nodes_.erase(ino);
    }
}

std::string Model::remove(uint64_t dir, const std::string& name, bool directory) {
    if (!nodes_.contains(dir)) {
        return "StaleHandle";
    }
    if (!is_dir(dir)) {
        return "NotDirectory";
    }
    auto at = nodes_[dir].entries.find(name);
    if (at == nodes_[dir].entries.end()) {
        return "NotFound";
    }
    uint64_t ino = at->second;
    if (directory != is_dir(ino)) {
        return directory ? "NotDirectory" : "IsDirectory";
    }
    if (!nodes_[ino].entries.empty()) {
        return "NotEmpty";
    }
    nodes_[dir].entries.erase(at);
    drop(ino);
    return "ok";
}

bool Model::below(uint64_t ino, uint64_t ancestor) {
    while (ino != ancestor && ino != 1) {
        ino = nodes_[ino].parent;
    }
    return ino == ancestor;
}

std::string Model::rename_checks(uint64_t from, uint64_t to, uint64_t source, uint64_t target) {
    (void)from;
    if (is_dir(source) && below(to, source)) {
        return "InvalidArgument";
    }
    if (target == 0) {
        return "ok";
    }
    if (is_dir(source) != is_dir(target)) {
        return is_dir(source) ? "NotDirectory" : "IsDirectory";
    }
    return nodes_[target].entries.empty() ? "ok" : "NotEmpty";
}

std::string Model::rename(uint64_t from,
                          const std::string& name,
                          uint64_t to,
                          const std::string& new_name,
                          uint32_t flags) {
    for (uint64_t dir : {from, to}) {
        if (!nodes_.contains(dir)) {
            return "StaleHandle";
        }
        if (!is_dir(dir)) {
            return "NotDirectory";
        }
    }
    if (!nodes_[from].entries.contains(name)) {
        return "NotFound";
    }
    uint64_t source = nodes_[from].entries[name];
    auto at = nodes_[to].entries.find(new_name);
    uint64_t target = at == nodes_[to].entries.end() ? 0 : at->second;
    if (flags == 1 && target != 0) {
        return "Exists";
    }
    if (flags == 2 && target == 0) {
        return "NotFound";
    }
    if (source == target) {
        return "ok";
    }
    if (flags == 2) {
        if ((is_dir(source) && below(to, source)) || (is_dir(target) && below(from, target))) {
            return "InvalidArgument";
        }
        nodes_[from].entries[name] = target;
        nodes_[to].entries[new_name] = source;
        nodes_[source].parent = to;
        nodes_[target].parent = from;
        return "ok";
    }
    std::string checked = rename_checks(from, to, source, target);
    if (checked != "ok") {
        return checked;
    }
    nodes_[from].entries.erase(name);
    nodes_[to].entries[new_name] = source;
    nodes_[source].parent = to;
    if (target != 0) {
        drop(target);
    }
    return "ok";
}

std::string Model::set_size(uint64_t ino, uint64_t size) {
    if (!nodes_.contains(ino)) {
        return "StaleHandle";
    }
    if (nodes_[ino].type != S_IFREG) {
        return is_dir(ino) ? "IsDirectory" : "InvalidArgument";
    }
    nodes_[ino].size = size;
    return "ok";
}

class RandomOperations {
public:
    explicit RandomOperations(uint64_t seed) : random_(seed) {}

    void step() {
        uint64_t dir = any_ino();
        std::string name = any_name();
        switch (random_.below(10)) {
            case 0:
            case 1:
            case 2:
                create(dir, name);
                break;
            case 3:
                expect(tree_.link(InodeId(any_ino()), InodeId(dir), name),
                       [&](uint64_t) { return model_.link(last_, dir, name); });
                break;
            case 4:
            case 5: {
                bool directory = random_.below(2) == 0;
                auto reply =
                    directory ? tree_.rmdir(InodeId(dir), name) : tree_.unlink(InodeId(dir), name);
                EXPECT_EQ(outcome(reply), model_.remove(dir, name, directory));
                break;
            }
            case 6:
            case 7:
            case 8:
                rename(dir, name);
                break;
            default: {
                uint64_t size = random_.below(3) * 1000;
                EXPECT_EQ(outcome(tree_.set_size(InodeId(dir), size)), model_.set_size(dir, size));
                break;
            }
        }
    }

    void compare() {
        for (const auto& [ino, node] : model_.nodes()) {
            pb::Attr attr = tree_.stat(InodeId(ino));
            EXPECT_EQ(attr.mode() & S_IFMT, node.type);
            if (node.type != S_IFDIR) {
                EXPECT_EQ(attr.nlink(), node.links);
                EXPECT_EQ(attr.size(), node.type == S_IFLNK ? 6 : node.size);
                continue;
            }
            std::map<std::string, uint64_t> listed;
            auto page = tree_.readdir(InodeId(ino), "", 0);
            for (const pb::DirEntry& entry : page->entries()) {
                listed[entry.name()] = entry.ino();
            }
            EXPECT_EQ(listed, node.entries) << "directory " << ino;
        }
        NamespaceReport report = tree_.fsck();
        EXPECT_TRUE(report.clean()) << report.problems.front();
        EXPECT_EQ(report.counts.inodes, model_.nodes().size());
    }

private:
    // Mostly what exists; sometimes what is gone.
    uint64_t any_ino() {
        if (random_.below(20) == 0 || model_.nodes().empty()) {
            return last_ = 1 + random_.below(1000);
        }
        auto at = model_.nodes().begin();
        std::advance(at, static_cast<long>(random_.below(model_.nodes().size())));
        // Operations on names need directories most of the time.
        for (int tries = 0; tries < 3 && at->second.type != S_IFDIR; ++tries) {
            at = model_.nodes().begin();
            std::advance(at, static_cast<long>(random_.below(model_.nodes().size())));
        }
        return last_ = at->first;
    }
    std::string any_name() { return std::string(1, static_cast<char>('a' + random_.below(6))); }

    template <class Expected>
    void expect(const Result<pb::MetaReply>& reply, Expected expected) {
        uint64_t ino = reply.ok() ? reply->attr().ino() : 0;
        EXPECT_EQ(outcome(reply), expected(ino));
    }

    void create(uint64_t dir, const std::string& name) {
        const std::vector<uint32_t> types = {S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFIFO};
        uint32_t type = types[random_.below(types.size())];
        auto reply = type == S_IFLNK ? tree_.symlink(InodeId(dir), name, "target")
                                     : tree_.create(InodeId(dir), name, type | 0700);
        expect(reply, [&](uint64_t ino) { return model_.create(dir, name, type, ino); });
    }

    void rename(uint64_t dir, const std::string& name) {
        uint64_t to = random_.below(3) == 0 ? dir : any_ino();
        std::string new_name = any_name();
        auto flags = static_cast<uint32_t>(random_.below(3));
        expect(tree_.rename(InodeId(dir), name, InodeId(to), new_name, flags),
               [&](uint64_t) { return model_.rename(dir, name, to, new_name, flags); });
    }

    Random random_;
    TestTree tree_;
    Model model_;
    uint64_t last_ = 1;
};

TEST(NamespaceRandomTest, OperationsMatchAModelTree) {
    constexpr uint64_t kSeeds = 12;
    constexpr int kSteps = 1500;
    constexpr int kCompareEvery = 250;
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        RandomOperations operations(seed);
        for (int step = 1; step <= kSteps; ++step) {
            operations.step();
            if (step % kCompareEvery == 0) {
                operations.compare();
            }
            if (HasFailure()) {
                FAIL() << "at step " << step;
            }
        }
    }
}

}  // namespace
}  // namespace kdfs::mds::testing
