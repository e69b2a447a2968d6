#pragma once

#include "client/read_ahead.h"
#include "client/write_buffer.h"
#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/proto/meta.pb.h"
#include "kdfs/rt/sync.h"

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace kdfs::client {

// A piece fetched ahead of its reader, up to where the file ended then. Complete when `done` is
// set; then `data` has what the chunk has of it.
struct FetchedPiece {
    uint64_t length = 0;  // bytes that were asked for
    Event done;
    Result<BufferChain> data = BufferChain();
};

// What the client knows of one inode.
// Invariants: `attr` may be used without asking while lease is not NONE (and the session is
// usable). size_dirty and times_dirty say that the server is not known to know attr's size and
// times. They are set under an exclusive lease only and outlive it: an answer to a recall may get
// lost, so only attributes from the server, or its answer to a call, clear them. The size they
// speak of belongs to attr.cut: see pb::Attr.
struct Inode {
    InodeId ino;
    pb::Attr attr;
    pb::LeaseMode lease = pb::LEASE_NONE;
    uint64_t lease_seq = 0;
    // Grants numbered up to cap_seq were given back, except for cap_mode.
    uint64_t cap_seq = 0;
    pb::LeaseMode cap_mode = pb::LEASE_NONE;

    uint64_t opens = 0;
    // Requests to open it that are under way, or answered and not yet among `opens`.
    size_t open_asks = 0;
    // This client made the file, has had it under the exclusive lease ever since and sent nothing
    // of it to the chunks.
    bool unwritten = false;
    bool server_open = false;  // the server counts it as open by us
    // It also knows that we write without the exclusive lease.
    bool server_writes = false;
    bool size_dirty = false;
    bool times_dirty = false;
    // Everything we know to have changed is on the server's disk, but the times of writes.
    bool meta_synced = false;
    bool size_synced =
        false;  // the size, and that the file exists, are; only the times changed since
    TimePoint meta_dirty_since{};
    // Writes since the exclusive lease was refused; asked for again now and then.
    uint64_t writes_through = 0;

    std::unique_ptr<WriteBuffer> buffer;
    TimePoint dirty_since{};
    size_t flights = 0;       // runs on their way to the chunks
    size_t drains = 0;        // who waits for the buffer to empty
    bool drain_once = false;  // send everything that is dirty now, in the background
    size_t holds = 0;         // who wants no new runs to start
    size_t cuts = 0;          // those of them that set its size
    size_t forces = 0;        // recalls, which override holds
    // The exclusive lease is asked back, and what was written under it is on its way to the chunks.
    // Its number; 0 if not.
    uint64_t giving_back = 0;
    AsyncMutex syncing;        // one fsync at a time: the next must not overtake what is under way
    bool sync_runs = false;    // runs that start now are synced by the chunks
    size_t told_not_open = 0;  // removals under way that said so to the server
    size_t told_closed = 0;    // releases that say so, under way or about to be sent
    Event flight_done;         // pulsed also when told_not_open is 0 again
    // What unwritten data was lost by. Errors have numbers from 1; each open file reports the last
    // one once by fsync. One write and each close before report it too, but do not count: a write
    // may look like a short one to its caller, and a forked process that closes what it inherited
    // does not look at the result.
    std::optional<Error> write_error;
    uint64_t write_errors = 0;
    uint64_t write_errors_told = 0;  // the highest that anybody was told of
    bool damage_told = false;        // that it cannot be read is in the log
    // Chains with commits that no sync covers yet, and their losses before the oldest of them.
    std::map<ChainId, uint64_t> unsynced;
    std::map<uint64_t, std::shared_ptr<FetchedPiece>> fetched;

    // Directories: name to inode, 0 for a name known to be absent.
    std::unordered_map<std::string, InodeId> names;
    bool names_complete = false;  // what is not in `names` does not exist
    uint64_t names_epoch = 0;     // another when answers under way must not be remembered

    std::list<Inode*>::iterator age;  // in the cache's list

    // Neither open here nor about to be.
    bool closed() const { return opens == 0 && open_asks == 0; }
    bool untold_error() const { return write_errors_told != write_errors; }
    bool dirty() const { return buffer && !buffer->empty(); }
    bool meta_dirty() const { return size_dirty || times_dirty; }
};

using InodeRef = std::shared_ptr<Inode>;

// The inodes a client knows, oldest use first. Pure. Grants and recalls may be seen in another
// order than the server sent them; their numbers put them right.
class InodeCache {
public:
    // Caps of absent inodes that are remembered one by one. Of those beyond, the oldest become one
    // number below which no grant counts: who loses one by that asks again.
    static constexpr size_t kAbsentCapsMax = 16384;
    static constexpr size_t kNamesSearchedMax = 1 << 16;
    static constexpr int kPathDepthMax = 64;

    InodeRef find(InodeId ino) const;
    InodeRef get(InodeId ino);  // adds it if it is not there
    void touch(Inode& inode);
    void erase(InodeId ino);
    size_t size() const { return inodes_.size(); }
    size_t names() const { return names_; }
    // All of them in ascending order.
    std::vector<InodeRef> sorted() const;
    // All of them, the least recently used first.
    std::vector<InodeRef> oldest_first() const;
    // The path, for messages, as far as known names tell it: "/a/b", ".../b" if the directories
    // above are not known, empty if nothing is. Looks through all names, or gives up if there are
    // more than kNamesSearchedMax.
    std::string known_path(InodeId ino) const;
    // The least recently used inodes that nobody uses and that have nothing unsaved; at most
    // `count`, looking at `look` entries at most.
    std::vector<InodeRef> idle(size_t count, size_t look) const;

    // Takes attributes unless they are older than what is known; keeps what is dirty here and
    // finds out whether the server knows it by now.
    void adopt_attr(Inode& inode, const pb::Attr& attr);
    // Takes the newest grant, unless it was already recalled or given back. It may take a read
    // lease away, never an exclusive one.
    void adopt_grant(Inode& inode, const pb::Grant& grant);
    // Lowers the lease to `keep` for grants up to `seq`, also for grants still under way; a lease
    // that was given later stays.
    void cap(Inode& inode, uint64_t seq, pb::LeaseMode keep);
    // The same for an inode that is not here. Remembered until forget_caps().
    void cap_absent(InodeId ino, uint64_t seq, pb::LeaseMode keep);
    // To be called when no answer is under way.
    void forget_caps();
    size_t absent_caps() const { return absent_caps_.size(); }

    // Answers under way about the directory's names are not to be remembered.
    void outdate_names(Inode& directory) { directory.names_epoch = ++epochs_; }
    void set_name(Inode& directory, const std::string& name, InodeId ino);
    void forget_name(Inode& directory, const std::string& name);
    void drop_names(Inode& directory);
    // Drops the names of directories, oldest first, until at most `most` are left.
    void shrink_names(size_t most);

private:
    struct Cap {
        uint64_t seq = 0;
        pb::LeaseMode mode = pb::LEASE_NONE;
    };
    std::unordered_map<InodeId, InodeRef> inodes_;
    std::list<Inode*> ages_;
    std::map<InodeId, Cap> absent_caps_;
    std::set<std::pair<uint64_t, InodeId>> caps_by_seq_;
    uint64_t absent_floor_ = 0;  // grants of absent inodes up to this number were taken back
    size_t names_ = 0;
    uint64_t epochs_ = 0;
};

}  // namespace kdfs::client
