#pragma once

#include "client/chunk_client.h"
#include "client/inode_cache.h"
#include "client/options.h"
#include "client/session.h"
#include "kdfs/proto/layout.h"
#include "kdfs/proto/meta.pb.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/function.h"
#include "kdfs/rt/sync.h"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace kdfs::client {

// Whoever caches what a FileClient answered, such as a kernel. Called on the loop, before a lease
// is given back; must not wait.
class Invalidator {
public:
    virtual ~Invalidator() = default;
    // The attributes, and with them the data, are to be asked for again.
    virtual void attributes(InodeId ino) = 0;
    // Every name is.
    virtual void names() = 0;
};

// An open file. 0 is none.
using OpenId = uint64_t;

// Classes with constructors where they travel through co_await statements: see RpcCall.
struct OpenOptions {
    bool write = false;
    bool truncate = false;
};

struct Opened {
    OpenId id = 0;
    pb::Attr attr;
};

struct WriteOp {
    OpenId id = 0;
    uint64_t offset = 0;
    Buffer data;
    bool append = false;     // at the end, wherever that is; offset is ignored
    bool kill_suid = false;  // drop set-id bits, as a write by an ordinary user does

    WriteOp(OpenId i, uint64_t at, Buffer bytes) : id(i), offset(at), data(std::move(bytes)) {}
};

// kdfs as a library: the operations of a file system, asynchronous, with the semantics of one
// machine's file system among all clients of the cluster.
//
// Caching: what is cached is used under a lease only. A recall makes later operations ask the
// server; it waits for nothing that waits for the server, so the two never wait for each other.
// Writing: under an exclusive lease write() returns once the bytes are buffered. They are written
// to the chunks when a piece is full, after kDirtyAge, when half the buffer is full, or by fsync();
// an error of such a write is returned once, by the next write, flush or fsync of the file.
// Without the lease (several writers) write() returns when the bytes are in the chunks and the size
// is reported.
// Durability: fsync() covers data, size and attributes of the file, and its name; not the times
// that writes gave it: they reach the server within kSyncedTimesAge.
// Lost sessions: unwritten data is gone and reported by kLostData, once per file. Reads go on under
// the next session; a change under way fails with kFenced.
//
// One loop. `env` and `invalidator` (may be null) outlive this. stop() before destruction, except
// where a crash is simulated.
class FileClient final : public LeaseHolder {
public:
    // Files of one lost session that the log names by path: each is searched in all names known.
    static constexpr size_t kPathsToldMax = 16;
    static constexpr Duration kDirtyAge = std::chrono::seconds(1);
    static constexpr Duration kMetaDirtyAge = std::chrono::seconds(5);
    static constexpr Duration kSyncedTimesAge = std::chrono::seconds(1);
    static constexpr Duration kBackgroundTurn = std::chrono::milliseconds(250);
    static constexpr size_t kRunsPerFileMax = 64;
    // How long a recall waits for a change of our own that makes writing futile.
    static constexpr Duration kOwnChangeWait = std::chrono::seconds(20);
    static constexpr size_t kReleaseBatch = 256;
    // Files whose size or times the server does not know: beyond this many it is told at once, so
    // that one request can name them all.
    static constexpr size_t kMetaDirtyMax = 16384;
    static constexpr size_t kMetaPerTurnMax = 16 * kReleaseBatch;
    // Up to this many runs fsync() has synced one by one; beyond, it syncs the chains afterwards.
    static constexpr size_t kSyncRunsMax = 4;
    // A file whose exclusive lease was refused is written through this often before asking again.
    static constexpr uint64_t kWritesThrough = 64;

    FileClient(Env& env, ClientOptions options, Invalidator* invalidator);
    ~FileClient() override;

    // Fails if the session cannot be opened by `deadline`, at once where waiting cannot help.
    Task<Status> start(TimePoint deadline);
    // Writes everything back and ends the session. The first error of a write that failed.
    Task<Status> stop();

    // Names.
    Task<Result<pb::Attr>> lookup(InodeId parent, std::string name);
    // A regular file, opened for writing. `request` as the server wants it; leases are filled in.
    Task<Result<Opened>> create(pb::Create request);
    // Anything that is not opened: directory, symlink, device, fifo, socket, also a file.
    Task<Result<pb::Attr>> make(pb::Create request);
    Task<Result<pb::Attr>> link(InodeId ino, InodeId parent, std::string name);
    Task<Status> unlink(InodeId parent, std::string name);
    Task<Status> rmdir(InodeId parent, std::string name);
    Task<Status> rename(pb::Rename request);
    // One page of a directory after a name (empty: the start), with attributes. What the listing
    // says is remembered under the directory's lease.
    Task<Result<pb::MetaReply>> list(InodeId directory, std::string after);
    // To be called when a listing from start to end found nothing changed since epoch names_epoch()
    // gave at its start: the directory has no other names.
    void listed_all(InodeId directory, uint64_t epoch);
    uint64_t names_epoch(InodeId directory);

    // Attributes.
    Task<Result<pb::Attr>> getattr(InodeId ino);
    Task<Result<pb::Attr>> setattr(pb::SetAttr request);
    Task<Result<std::string>> getxattr(InodeId ino, std::string name);
    Task<Result<std::vector<std::string>>> listxattr(InodeId ino);
    Task<Status> setxattr(pb::SetXattr request);
    Task<Status> removexattr(InodeId ino, std::string name);
    Task<Result<pb::FsStat>> statfs();

    // Files.
    Task<Result<Opened>> open(InodeId ino, OpenOptions options);
    // The bytes of the range up to the end of the file.
    Task<Result<BufferChain>> read(OpenId id, uint64_t offset, uint64_t length);
    Task<Result<uint64_t>> write(WriteOp op);
    // What close() says: an error of an earlier write, if there is one.
    Status flush(OpenId id);
    Task<Status> fsync(OpenId id, bool data_only);
    // Durability of names.
    Task<Status> fsync_directory();
    void release(OpenId id);

    // Answers from the cache, without a coroutine: null if the server has to be asked.
    const pb::Attr* cached_attr(InodeId ino);
    // True if it is known what `name` is: `attr` then has it, or is null for an absent name.
    bool cached_lookup(InodeId parent, const std::string& name, const pb::Attr*& attr);
    // Whether an answer about this may be cached by others until they are told otherwise.
    bool attr_cacheable(InodeId ino) { return cached_attr(ino) != nullptr; }
    // `ino` is 0 for a name that does not exist.
    bool name_cacheable(InodeId parent, const std::string& name, InodeId ino);

    // What is cached of the inode is used under this now; NONE if it is not.
    pb::LeaseMode lease(InodeId ino) const;
    // All that are not NONE.
    std::vector<std::pair<InodeId, pb::LeaseMode>> leases() const;
    // `watch` is called on the loop with each inode whose lease an answer made a higher one.
    void watch_leases(Function<void(InodeId)> watch) { lease_watch_ = std::move(watch); }

    Session& session() { return session_; }
    ChunkClient& chunks() { return chunks_; }
    const ClientOptions& options() const { return options_; }
    uint64_t buffered_bytes() const { return buffered_; }

    // LeaseHolder.
    Task<pb::RecallReply> recall(pb::RecallRequest request) override;
    std::vector<pb::HeldLease> held(size_t bytes_max) override;
    void suspended() override;
    void resumed(const std::vector<uint64_t>& refused) override;
    void lost() override;

private:
    struct OpenFile {
        InodeRef inode;
        bool write = false;
        ReadAhead ahead;
        // Of Inode::write_errors: what an fsync reported, and what a write did.
        uint64_t errors_seen = 0;
        uint64_t errors_hinted = 0;
    };
    // What a read goes by: current when it starts.
    struct ReadView {
        SessionId session;  // that all this was learned under
        InodeRef inode;
        DataId data;
        pb::Layout layout;
        std::shared_ptr<const ClusterMap> map;
        bool cached = false;  // fetched pieces may be used and kept
        bool sequential = false;
    };
    class Hold;
    class NotOpen;
    class OpenAsk;
    // What the server is to be told. `inode` is null if it is no longer in the cache.
    struct Release {
        InodeRef inode;
        pb::ReleaseOne item;
    };
    // A file the server has for open although only an answer under way might have opened it.
    struct Suspect {
        uint64_t lease_seq = 0;    // of the lease that went, or the last one given
        uint64_t asks_before = 0;  // requests with numbers below this might have opened it
    };

    // file_client.cc
    // `ask` is told of the inode if the server opened one. Lives until the call ends.
    Task<Result<pb::MetaReply>> call(pb::MetaRequest request, OpenAsk* ask = nullptr);
    Status check_kinds(const pb::MetaReply& reply) const;
    void take_answer(const pb::MetaReply& reply);
    void take_attr(const pb::Attr& attr, const pb::Grant& grant);
    InodeRef adopt(const pb::Attr& attr);
    bool usable(const Inode& inode, pb::LeaseMode mode) const;
    Result<OpenFile*> open_file(OpenId id);
    // An error if it has no data: only the layouts of regular files are checked.
    static Status regular_file(const Inode& inode);
    Opened add_open(InodeRef inode, bool write);
    void drop_inode_cache(Inode& inode);
    void trim_cache();
    void queue_release(Inode& inode, pb::LeaseMode keep, bool still_open);
    pb::ReleaseOne release_item(const Inode& inode, pb::LeaseMode keep, bool still_open) const;
    Task<void> send_releases();
    void released(const Release& release, bool taken);
    static void told(const Release& release);
    Task<Result<std::shared_ptr<const ClusterMap>>> map_with(pb::Layout layout);
    WallTime time_after(WallTime earlier);

    // names.cc
    void remember_name(Inode& directory, uint64_t epoch, const std::string& name, InodeId ino);
    void own_change(InodeId directory, const std::string& name, InodeId ino);
    Task<Result<pb::MetaReply>> create_call(pb::Create request, OpenAsk* ask);
    Task<Status> remove(InodeId parent, std::string name, bool directory);
    InodeRef known_child(InodeId parent, const std::string& name);
    void forget_removed(const pb::Attr& attr, bool orphaned);

    // attributes.cc
    Task<Result<InodeRef>> fresh(InodeId ino);
    Task<Result<pb::Attr>> set_size(InodeRef inode, pb::SetAttr request);
    bool set_locally(Inode& inode, const pb::SetAttr& request);
    Task<Result<pb::Attr>> setattr_call(pb::SetAttr request);

    // file_read.cc
    Task<Result<BufferChain>> read_under(SessionId session,
                                         OpenId id,
                                         uint64_t offset,
                                         uint64_t length);
    Task<Result<BufferChain>> read_range(ReadView view, uint64_t offset, uint64_t length);
    Task<Result<BufferChain>> read_piece(ReadView view, PieceRange range);
    void tell_damage(Inode& inode, const PieceRange& range, const Error& cause);
    std::shared_ptr<FetchedPiece> fetch(const ReadView& view, uint64_t piece);
    Task<void> fetch_piece(ReadView view, uint64_t piece, std::shared_ptr<FetchedPiece> into);
    void drop_fetched(Inode& inode, uint64_t first_piece, uint64_t last_piece);
    void shrink_fetched();

    // file_write.cc
    Task<Result<Opened>> open_call(InodeRef inode, OpenOptions options, OpenAsk* ask);
    Task<Status> want_exclusive(InodeRef inode);
    Task<Status> kill_suid(InodeId ino);
    Task<Result<bool>> known_as_writer(InodeRef inode, bool append);
    void close_unused(Inode& inode, bool sure = false);
    void grow(const InodeRef& inode, uint64_t size);
    void buffer_write(const InodeRef& inode, uint64_t offset, const Buffer& data);
    Task<Status> write_through(InodeRef inode, uint64_t offset, Buffer data);
    struct PiecesWritten {
        Status status;           // the first error
        uint64_t end_bytes = 0;  // the chunks may have bytes of it up to here; 0: none
    };
    Task<PiecesWritten> write_pieces(SessionId session,
                                     InodeRef inode,
                                     DataId data_id,
                                     uint64_t offset,
                                     Buffer data);
    Status take_write_error(OpenId id);
    Status hint_write_error(OpenId id);
    Task<Status> sync_data(InodeRef inode);
    Task<Status> sync_meta(InodeRef inode, bool data_only);
    Task<Status> flush_meta(InodeRef inode, bool sync);

    // write_back.cc
    void pump(const InodeRef& inode);
    Task<void> write_run(InodeRef inode, WriteBuffer::Run run, Durability durability);
    void keep_write_error(Inode& inode, Error error, SessionId session);
    static void add_write_error(Inode& inode, Error error);
    Task<void> drain(InodeRef inode);
    Task<void> background();
    void background_turn();
    void send_idle_meta();
    void suspect(InodeId ino, uint64_t lease_seq);
    void check_suspects();
    void drain_all();
    void forget_dirty(Inode& inode, uint64_t beyond);
    Task<void> flush_quietly(InodeRef inode);

    // recall.cc
    static std::optional<pb::HeldLease> claim(const Inode& inode);
    void give_up(Inode& inode);
    pb::ReleaseOne returned(Inode& inode, const pb::RecallRequest& request, bool was_exclusive);
    // `paths_told` counts the files that it names in the log.
    void lose_lease(Inode& inode, size_t& paths_told);
    Task<void> await_own_change(InodeRef inode);

    Env& env_;
    ClientOptions options_;
    Invalidator* invalidator_;
    InodeCache cache_;
    std::unordered_map<OpenId, OpenFile> opens_;
    OpenId next_open_ = 1;

    uint64_t buffered_ = 0;
    Event room_;
    // Files with unwritten bytes, and those whose size or times the server does not know.
    std::map<InodeId, InodeRef> dirty_;
    std::map<InodeId, InodeRef> meta_dirty_;
    Event wake_background_;
    bool stopping_ = false;

    uint64_t fetched_bytes_ = 0;
    std::list<std::pair<std::weak_ptr<Inode>, uint64_t>> fetch_order_;
    Buffer zeros_;

    std::vector<Release> releases_;
    bool sending_releases_ = false;
    Event releases_sent_;
    size_t asking_ = 0;  // calls whose answers are still to be taken
    // The numbers of requests to open a file that are under way, or whose file is not yet among the
    // open ones.
    std::set<uint64_t> open_asks_;
    uint64_t next_open_ask_ = 1;
    // To be looked at again. Each waits only for requests that were under way when it came.
    std::map<InodeId, Suspect> suspects_;
    Function<void(InodeId)> lease_watch_;

    Session session_;
    ChunkClient chunks_;
    TaskScope scope_;
};

}  // namespace kdfs::client
