#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/kv/kv_store.h"
#include "kdfs/rt/task.h"
#include "mds/namespace.h"
#include "mds/schema.h"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace kdfs::mds {

// Chunks that should exist, or may: what storage holds beyond these has no owner.
struct OwnedData {
    DataId data;
    pb::Layout layout;
    uint64_t size_bytes = 0;
    InodeId ino;  // none: dead, in the gc queue
};

struct NamespaceReport {
    std::vector<std::string> problems;  // the first NamespaceCheck::kProblemsMax
    uint64_t problem_count = 0;
    std::vector<OwnedData> owned;  // in data id order
    Counts counts;                 // as found, not as recorded
    uint64_t directories = 0;
    uint64_t regular_files = 0;

    bool clean() const { return problem_count == 0; }
};

// Checks that the records of a namespace fit together: every name has an inode and every inode its
// names, directories form one tree, orphans, dead data, xattrs and counters agree. Takes records in
// any order and judges at the end. Pure. Memory: about 150 bytes per inode.
class NamespaceCheck {
public:
    static constexpr uint64_t kProblemsMax = 1000;

    void add(std::string_view key, std::string_view value);
    NamespaceReport finish();

private:
    struct Seen {
        bool exists = false;
        uint32_t mode = 0;
        uint32_t nlink = 0;
        uint64_t size = 0;
        uint32_t xattr_bytes = 0;
        InodeId parent;
        // Counted from other records.
        uint64_t names = 0;
        uint64_t entries = 0;
        uint64_t subdirectories = 0;
        uint64_t xattr_bytes_found = 0;
        InodeId named_in;
        uint32_t mode_in_names = 0;
        bool orphan = false;
    };

    void problem(std::string text);
    Status add_record(std::string_view key, std::string_view value);
    void add_inode(const Inode& inode);
    void add_data(OwnedData owned);
    Status add_name(std::string_view key, std::string_view value);
    Status add_xattr(std::string_view key, std::string_view value);
    void check_inode(uint64_t ino, const Seen& seen);
    void check_directory(uint64_t ino, const Seen& seen);
    void check_tree();
    void check_counters();

    // Ordered, so that reports of one store are equal.
    std::map<uint64_t, Seen> inodes_;
    std::map<uint64_t, OwnedData> owned_;
    Counters recorded_;
    bool counters_seen_ = false;
    uint64_t highest_id_ = 0;
    NamespaceReport report_;
};

// Reads all of the store, which nobody changes meanwhile. `store` outlives the task.
Task<Result<NamespaceReport>> check_namespace(KvStore& store);

}  // namespace kdfs::mds
