#include "mds/namespace.h"

#include "kdfs/base/check.h"
#include "kdfs/base/codec.h"
#include "mds/ops.h"
#include "mds/schema.h"
#include "mds/view.h"

#include <sys/stat.h>

#include <utility>

namespace kdfs::mds {
namespace {

Reply dispatch(View& view, const pb::MetaRequest& request, const OpContext& context) {
    switch (request.op_case()) {
        case pb::MetaRequest::kLookup:
            return op_lookup(view, request.lookup());
        case pb::MetaRequest::kGetattr:
            return op_getattr(view, request.getattr());
        case pb::MetaRequest::kOpen:
            return op_open(view, request.open(), context);
        case pb::MetaRequest::kReaddir:
            return op_readdir(view, request.readdir());
        case pb::MetaRequest::kGetxattr:
            return op_getxattr(view, request.getxattr());
        case pb::MetaRequest::kListxattr:
            return op_listxattr(view, request.listxattr());
        case pb::MetaRequest::kStatfs:
            return op_statfs(view);
        case pb::MetaRequest::kSync:
            return pb::MetaReply();
        case pb::MetaRequest::kSetattr:
            return op_setattr(view, request.setattr(), context);
        case pb::MetaRequest::kCreate:
            return op_create(view, request.create(), context);
        case pb::MetaRequest::kRemove:
            return op_remove(view, request.remove(), context);
        case pb::MetaRequest::kRename:
            return op_rename(view, request.rename(), context);
        case pb::MetaRequest::kLink:
            return op_link(view, request.link(), context);
        case pb::MetaRequest::kSetxattr:
            return op_setxattr(view, request.setxattr(), context);
        case pb::MetaRequest::kRemovexattr:
            return op_removexattr(view, request.removexattr(), context);
        case pb::MetaRequest::kFlush:
            return op_flush(view, request.flush(), context);
        case pb::MetaRequest::kGetPolicy:
            return op_get_policy(view, request.get_policy());
        case pb::MetaRequest::kRelease:
            return op_release(view, request.release(), context);
        case pb::MetaRequest::OP_NOT_SET:
            break;
    }
    return Error(Errc::kUnimplemented,
                 "the metadata server does not know this operation; is the client newer?");
}

// footprint() runs the operation for nothing: any layout will do, nobody has anything open.
OpContext make_dry_context() {
    OpContext context;
    context.choose_layout = [](const pb::Policy&) -> Result<pb::Layout> {
        pb::Layout layout;
        layout.set_chunk_bytes(kChunkBytesDefault);
        layout.set_width(1);
        layout.set_table(1);
        layout.set_replicas(1);
        return layout;
    };
    context.is_open = [](InodeId) { return false; };
    context.holds_exclusive = [](InodeId) { return false; };
    return context;
}

}  // namespace

Namespace::Namespace(KvStore& store) : store_(store), dry_context_(make_dry_context()) {}

Status Namespace::format(WallTime now, const pb::Policy& policy, KvBatch& batch) {
    View view(*this);
    KDFS_TRY_ASSIGN(std::optional<std::string> root, view.get(inode_key(kRootInode)));
    if (root) {
        return {};
    }
    Inode inode;
    inode.ino = kRootInode;
    inode.mode = S_IFDIR | 0755;
    inode.nlink = 2;
    inode.atime = inode.mtime = inode.ctime = now;
    inode.change = 1;
    inode.parent = kRootInode;
    inode.policy = policy;
    Counters counters;
    counters.counts.inodes = 1;
    batch.put(inode_key(kRootInode), encode(inode));
    batch.put(counters_key(), encode(counters));
    policy_cache_.clear();
    return {};
}

Result<std::vector<Touched>> Namespace::footprint(const pb::MetaRequest& request) {
    View view(*this);
    auto reply = dispatch(view, request, dry_context_);
    bool missing = !reply.ok() && reply.error().code == Errc::kWouldBlock;
    effects_ = Effects{};
    if (missing) {
        return std::move(reply).error();
    }
    return touched_;
}

Result<pb::MetaReply> Namespace::apply(const pb::MetaRequest& request,
                                       const OpContext& context,
                                       KvBatch& batch) {
    View view(*this);
    auto reply = dispatch(view, request, context);
    if (reply.ok()) {
        view.commit(batch);
    } else {
        effects_ = Effects{};
    }
    return reply;
}

Result<pb::Attr> Namespace::take_dirty(const DirtyState& dirty, WallTime now, KvBatch& batch) {
    View view(*this);
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(dirty.ino));
    KDFS_TRY(take_dirty_state(view, *inode, dirty, now));
    pb::Attr attr;
    fill_attr(*inode, attr);
    view.commit(batch);
    return attr;
}

Status Namespace::refresh(pb::Attr& attr) {
    View view(*this);
    Result<Inode*> inode = view.inode(InodeId(attr.ino()));
    if (inode.ok()) {
        fill_attr(**inode, attr);
        return {};
    }
    return inode.error().code == Errc::kStaleHandle ? Status() : inode.error();
}

Result<bool> Namespace::is_orphan(InodeId ino) {
    View view(*this);
    KDFS_TRY_ASSIGN(std::optional<std::string> record, view.get(orphan_key(ino)));
    return record.has_value();
}

Result<bool> Namespace::release_orphan(InodeId ino, KvBatch& batch) {
    View view(*this);
    KDFS_TRY_ASSIGN(std::optional<std::string> record, view.get(orphan_key(ino)));
    if (!record) {
        return false;
    }
    KDFS_TRY_ASSIGN(Inode * inode, view.inode(ino));
    // Who had it open may have ended badly.
    KDFS_TRY_ASSIGN(bool freed, free_orphan(view, *inode, kEndUnknown));
    view.commit(batch);
    return freed;
}

Result<std::vector<InodeId>> Namespace::orphans(InodeId after, uint64_t entries_max) {
    View view(*this);
    std::string begin = orphan_key(after) + '\0';
    KDFS_TRY_ASSIGN(std::vector<KvEntry> records,
                    view.scan(begin, table_end(Table::kOrphan), entries_max));
    std::vector<InodeId> found;
    found.reserve(records.size());
    for (const KvEntry& record : records) {
        KDFS_TRY_ASSIGN(uint64_t ino, parse_number_key(record.key));
        found.emplace_back(ino);
    }
    return found;
}

Result<std::vector<DeadData>> Namespace::dead_data(DataId after, uint64_t entries_max) {
    View view(*this);
    std::string begin = dead_data_key(after) + '\0';
    KDFS_TRY_ASSIGN(std::vector<KvEntry> records,
                    view.scan(begin, table_end(Table::kDeadData), entries_max));
    std::vector<DeadData> found;
    found.reserve(records.size());
    for (const KvEntry& record : records) {
        KDFS_TRY_ASSIGN(DeadData dead, decode_dead_data(record.key, record.value));
        found.push_back(std::move(dead));
    }
    return found;
}

Status Namespace::finish_dead_data(const std::vector<DataId>& finished, KvBatch& batch) {
    View view(*this);
    KDFS_TRY(view.load_counters());
    for (DataId data : finished) {
        std::string key = dead_data_key(data);
        KDFS_TRY_ASSIGN(std::optional<std::string> record, view.get(key));
        if (record) {
            view.erase_key(std::move(key));
            --view.change_counts().gc_queued;
        }
    }
    view.commit(batch);
    return {};
}

std::string Namespace::forgotten_ends_key() {
    return std::string(1, static_cast<char>(Table::kManager)) + "ends";
}

Status Namespace::forget_ends(KvBatch& batch) {
    View view(*this);
    KDFS_TRY_ASSIGN(Counters counters, view.read_counters());
    ends_forgotten_below_ = DataId(counters.next_id);
    std::string record;
    Writer out(record);
    out.u8(kRecordFormat);
    out.u64(counters.next_id);
    batch.put(forgotten_ends_key(), std::move(record));
    return {};
}

Status Namespace::restore_ends(std::string_view stored) {
    Reader in(stored);
    uint8_t format = in.u8();
    DataId below(in.u64());
    if (!in.done() || format != kRecordFormat) {
        return Error(Errc::kCorrupt,
                     "the record of forgotten file ends is damaged: run `kdfs fsck`");
    }
    ends_forgotten_below_ = below;
    return {};
}

Result<std::vector<Trim>> Namespace::trims(uint64_t entries_max) {
    View view(*this);
    KDFS_TRY_ASSIGN(std::vector<KvEntry> records,
                    view.scan(table_begin(Table::kTrim), table_end(Table::kTrim), entries_max));
    std::vector<Trim> found;
    found.reserve(records.size());
    for (const KvEntry& record : records) {
        KDFS_TRY_ASSIGN(Trim trim, decode_trim(record.key, record.value));
        found.push_back(std::move(trim));
    }
    return found;
}

Status Namespace::finish_trim(const Trim& trim, KvBatch& batch) {
    View view(*this);
    std::string key = trim_key(trim.ino, trim.change);
    KDFS_TRY_ASSIGN(std::optional<std::string> record, view.get(key));
    KDFS_TRY(view.load_counters());
    if (record) {
        view.erase_key(std::move(key));
        --view.change_counts().trims;
        view.commit(batch);
    }
    return {};
}

Result<Counts> Namespace::counts() {
    View view(*this);
    KDFS_TRY_ASSIGN(Counters counters, view.read_counters());
    return counters.counts;
}

Result<pb::Policy> Namespace::root_policy() {
    View view(*this);
    KDFS_TRY_ASSIGN(Inode root, view.peek(kRootInode));
    return root.policy;
}

Result<std::optional<pb::MetaReply>> Namespace::find_reply(SessionId session, uint64_t seq) {
    View view(*this);
    std::string key = reply_key(session, seq);
    KDFS_TRY_ASSIGN(std::optional<std::string> record, view.get(key));
    if (!record) {
        return std::optional<pb::MetaReply>();
    }
    KDFS_TRY_ASSIGN(pb::MetaReply reply, decode_reply(key, *record));
    return std::optional<pb::MetaReply>(std::move(reply));
}

void Namespace::store_reply(SessionId session,
                            uint64_t seq,
                            const pb::MetaReply& reply,
                            KvBatch& batch) {
    batch.put(reply_key(session, seq), encode_reply(reply));
}

void Namespace::forget_replies(SessionId session,
                               uint64_t from_seq,
                               uint64_t below_seq,
                               KvBatch& batch) {
    // One by one, since range erasures stay in RocksDB until it compacts and slow every scan; a
    // gap this wide comes once in a session's life.
    constexpr uint64_t kSingleErasesMax = 256;
    if (below_seq <= from_seq) {
        return;
    }
    if (below_seq - from_seq > kSingleErasesMax) {
        batch.erase_range(reply_key(session, from_seq), reply_key(session, below_seq));
        return;
    }
    for (uint64_t seq = from_seq; seq < below_seq; ++seq) {
        batch.erase(reply_key(session, seq));
    }
}

void Namespace::forget_session(SessionId session, KvBatch& batch) {
    batch.erase_range(reply_key(session, 0), replies_end(session));
}

}  // namespace kdfs::mds
