#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/kv/kv_store.h"
#include "mds/namespace.h"
#include "mds/schema.h"

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kdfs::mds {

// The store as one operation sees it: inodes it has loaded, what it did to them, and the changes to
// come. An operation reads and checks everything first and changes after that, so an error leaves
// nothing behind. Lives as long as one call of the namespace; pointers to inodes stay good for it.
class View {
public:
    explicit View(Namespace& space);
    View(const View&) = delete;
    View& operator=(const View&) = delete;

    // kWouldBlock fills Namespace::missing().
    Result<std::optional<std::string>> get(const std::string& key);
    Result<std::vector<KvEntry>> scan(const std::string& first,
                                      const std::string& beyond,
                                      uint64_t entries_max);

    // The inode, listed as touched. kStaleHandle if there is none.
    Result<Inode*> inode(InodeId ino);
    // The same of a name in `parent`, where none means damage.
    Result<Inode*> inode_of(const Dentry& entry, InodeId parent, std::string_view name);
    // The inode, or kNotDirectory.
    Result<Inode*> directory(InodeId ino);
    // A directory that can take a new name: kNotFound if it was removed.
    Result<Inode*> live_directory(InodeId ino);
    // A copy that is not listed as touched, for walks up.
    Result<Inode> peek(InodeId ino);
    // A copy that is neither listed nor kept; one that is not in memory is asked for with the next
    // `run` numbers.
    Result<std::optional<Inode>> peek_run(InodeId ino, uint64_t run);
    // Lists without loading.
    void touch(InodeId ino, Access access);

    Result<std::optional<Dentry>> find(InodeId parent, std::string_view name);
    // Like find(), but kNotFound for none.
    Result<Dentry> entry(InodeId parent, std::string_view name);

    // Before anything that counts: next_id(), make(), erase(), change_counts().
    Status load_counters();
    Result<Counters> read_counters();

    // From here on nothing fails.
    uint64_t next_id();
    Counts& change_counts();
    Inode& make(uint32_t mode);
    // The inode will be written, with a raised change counter.
    void change(Inode& inode);
    // change() and a new ctime.
    void change(Inode& inode, WallTime ctime);
    void erase(Inode& inode);
    void put(std::string key, std::string value);
    void erase_key(std::string key);
    void erase_range(std::string first, std::string beyond);

    Effects& effects() { return space_.effects_; }
    std::map<InodeId, pb::Policy>& policies() { return space_.policy_cache_; }
    void forget_policies() { forget_policies_ = true; }

    // The inode may have data that nobody has told of; see Namespace::forget_ends().
    bool end_forgotten(const Inode& inode) const {
        return inode.data < space_.ends_forgotten_below_;
    }

    // Hands everything to `batch`.
    void commit(KvBatch& batch);

private:
    struct Slot {
        Inode inode;
        bool changed = false;
        bool erased = false;
    };
    Slot* slot_of(InodeId ino);
    Result<std::optional<Inode>> load(InodeId ino);

    Namespace& space_;
    std::deque<Slot> slots_;
    std::optional<Counters> counters_;
    bool counters_changed_ = false;
    bool forget_policies_ = false;
    KvBatch pending_;
};

}  // namespace kdfs::mds
