#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/kv/kv_store.h"
#include "kdfs/proto/meta.pb.h"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace kdfs::mds {

// What an operation does with an inode, as far as others' leases are concerned.
enum class Access : uint8_t {
    kRead,    // needs its current attributes: an exclusive holder must give them back first
    kChange,  // changes it: nobody else may keep anything cached of it
};

struct Touched {
    InodeId ino;
    Access access = Access::kRead;
};

// What the namespace needs to know besides the request and the store. The functions are called
// during apply() only; a context may serve any number of requests.
struct OpContext {
    SessionId session;
    WallTime now = 0;
    // Layout of a new file below a directory with this effective policy.
    std::function<Result<pb::Layout>(const pb::Policy&)> choose_layout;
    // True if another session than `session`, or `session` itself, has the inode open.
    std::function<bool(InodeId)> is_open;
    // True if `session` holds the exclusive lease: what it says of size and times counts.
    std::function<bool(InodeId)> holds_exclusive;
    // True if that lease is the exclusive one and nobody asked for it back: what `session` said
    // about the file when it sent the request still holds. Null if the request says nothing.
    std::function<bool(InodeId, uint64_t lease_seq)> lease_stands;
    // True if another session may be writing to its chunks. Null: nobody is.
    std::function<bool(InodeId)> written_by_other;
};

// The end of a file whose writers may have written further than they said.
inline constexpr uint64_t kEndUnknown = kFileBytesMax;

// Bytes of a file beyond its new end that the chunks may still hold.
struct Trim {
    InodeId ino;
    DataId data;
    pb::Layout layout;
    uint64_t from_bytes = 0;    // the new end
    uint64_t beyond_bytes = 0;  // the old end, kEndUnknown if a writer may have gone further
    uint64_t change = 0;        // makes the record's key unique
};

// Chunks of a file that is gone.
struct DeadData {
    DataId data;
    pb::Layout layout;
    uint64_t size_bytes = 0;  // no chunks are beyond it; kEndUnknown: anywhere
};

// What an applied request means for the server besides its reply.
struct Effects {
    std::vector<InodeId> freed;     // inodes that are gone: forget their leases
    std::vector<InodeId> orphaned;  // without a name, live until release_orphan()
    std::optional<Trim> trim;       // to be executed, then finish_trim(), before the reply leaves
    std::vector<DeadData> died;     // what the gc queue grew by
};

// What a session knows newer than the store of a file: on recall, release and flush.
struct DirtyState {
    InodeId ino;
    std::optional<uint64_t> size_bytes;
    std::optional<WallTime> mtime;
    std::optional<WallTime> atime;
    bool exclusive = false;  // the times are the times; else lower bounds. The size always is one
    uint64_t cut = 0;        // Inode::cut as the session knows it
    // If given, the times count only while this is Inode::change.
    std::optional<uint64_t> change;
    bool kill_suid = false;
};

struct Counts {
    uint64_t inodes = 0;  // with orphans
    uint64_t orphans = 0;
    uint64_t gc_queued = 0;
    uint64_t trims = 0;
};

// The namespace as functions from (store, request) to (reply, batch). No operation suspends or
// holds state between calls (but for a cache of effective policies): a read that is not in memory
// ends it with kWouldBlock and names the missing keys in missing(); load them and call again. The
// caller serialises: apply() and the commit of its batch happen in one turn of the loop; a batch
// that is not committed is simply dropped. A batch takes the changes of one call: it is committed
// before the next one is made, since each call reads what the last one wrote from the store.
//
// Leases: since nothing happens before the commit, a server may apply() into a fresh batch, look at
// touched(), and if somebody else's lease is in the way drop the batch, recall, and apply again.
// footprint() answers the same without a batch. The walk of a moved directory to the root, and of
// policies, reads ancestors that are not listed: nobody holds dirty state on directories.
//
// Exactly once: a failed operation changes nothing and may run again, so only successes need to be
// stored (store_reply() into the batch of the change).
//
// Errors: kStaleHandle if an inode named by number is gone; kCorrupt names the key.
class Namespace {
public:
    struct Missing {
        std::string first;
        std::string beyond;  // empty: the single key `first`
        uint64_t entries_max = 1;
    };

    // Bounds of one page of ReadDir.
    static constexpr uint64_t kReadDirEntriesMax = 1024;
    static constexpr uint64_t kReadDirBytesMax = 1 * MiB;
    // Steps to the root: how deep a directory may lie for a rename of a directory below it.
    static constexpr uint64_t kDepthMax = 1 << 16;
    static constexpr uint64_t kPolicyCacheMax = 4096;

    // `store` outlives this.
    explicit Namespace(KvStore& store);

    // Creates the root directory in an empty store. Nothing if it is there.
    Status format(WallTime now, const pb::Policy& policy, KvBatch& batch);

    // The inodes the request would touch, names resolved, for recalling leases before it runs. An
    // operation that will fail (no such name) touches what it got to.
    Result<std::vector<Touched>> footprint(const pb::MetaRequest& request);

    // Runs the request. Changes go to `batch` only; on an error the batch is as it was. The reply
    // has everything but grants, and of StatFs the files and the root's own replicas only. Of
    // Release it takes the sizes and times, then frees orphans that is_open() denies: the server's
    // table of open files has the release before. SyncMeta and Flush.sync are the server's. Remove
    // and Rename keep an unnamed inode as an orphan if is_open() says so or the request has no
    // `not_open_ino` for it; the server counts the own session's opens only without that. A session
    // with the exclusive lease flushes its size before it sets another size: the old end known here
    // decides what is trimmed.
    Result<pb::MetaReply> apply(const pb::MetaRequest& request,
                                const OpContext& context,
                                KvBatch& batch);

    // What the last call that ended with kWouldBlock lacked.
    const Missing& missing() const { return missing_; }
    // Of the last apply(), also of a failed one: what it read or changes. Each inode once.
    const std::vector<Touched>& touched() const { return touched_; }
    // Of the last apply() or other call with a batch that succeeded.
    const Effects& effects() const { return effects_; }

    // Makes attributes of earlier the inode's now; they stay if it is gone.
    Status refresh(pb::Attr& attr);
    // Takes size and times from a lease holder that answers a recall. The attributes after it.
    Result<pb::Attr> take_dirty(const DirtyState& dirty, WallTime now, KvBatch& batch);

    // Whether the inode has no name and lives because it may be open.
    Result<bool> is_orphan(InodeId ino);
    // Frees the inode if it is an orphan; true if it was. The caller knows that nobody has it open.
    Result<bool> release_orphan(InodeId ino, KvBatch& batch);
    // Orphans with numbers above `after` in their order. For the start of a server, when sessions
    // that had them open may be gone.
    Result<std::vector<InodeId>> orphans(InodeId after, uint64_t entries_max);

    // The entries of the gc queue with the lowest data ids above `after`. Steps over all that were
    // finished lately, which stay in the store for a while: not to be called for each few.
    Result<std::vector<DeadData>> dead_data(DataId after, uint64_t entries_max);
    // Takes those that are in the queue out of it.
    Status finish_dead_data(const std::vector<DataId>& finished, KvBatch& batch);

    // Somebody who may have written went without saying how far: from the next removal on, the data
    // of any file there is now may end anywhere.
    Status forget_ends(KvBatch& batch);
    // What forget_ends() stored, given back at a start.
    Status restore_ends(std::string_view stored);
    static std::string forgotten_ends_key();

    // Trims that were begun and not finished, in inode order. At a start they are executed before
    // anybody may read or write.
    Result<std::vector<Trim>> trims(uint64_t entries_max);
    Status finish_trim(const Trim& trim, KvBatch& batch);

    Result<Counts> counts();
    // What new files get where nothing below the root says otherwise.
    Result<pb::Policy> root_policy();

    // Exactly-once replies. forget_replies() erases [from_seq, below_seq) one by one: pass what was
    // not forgotten yet. forget_session() erases all of a session.
    Result<std::optional<pb::MetaReply>> find_reply(SessionId session, uint64_t seq);
    static void store_reply(SessionId session,
                            uint64_t seq,
                            const pb::MetaReply& reply,
                            KvBatch& batch);
    static void forget_replies(SessionId session,
                               uint64_t from_seq,
                               uint64_t below_seq,
                               KvBatch& batch);
    static void forget_session(SessionId session, KvBatch& batch);

private:
    friend class View;

    KvStore& store_;
    Missing missing_;
    std::vector<Touched> touched_;
    Effects effects_;
    // Effective policy by directory; emptied whenever a policy or a directory's place changes.
    std::map<InodeId, pb::Policy> policy_cache_;
    OpContext dry_context_;
    DataId ends_forgotten_below_;
};

}  // namespace kdfs::mds
