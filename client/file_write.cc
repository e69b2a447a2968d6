// Writing: what FileClient does with data from the application until it is buffered, and fsync.

#include "client/file_client.h"
#include "client/hold.h"
#include "kdfs/base/mutant.h"
#include "kdfs/proto/layout.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace kdfs::client {
namespace {

uint64_t write_begin(const Inode& inode, const WriteOp& op) {
    return op.append ? inode.attr.size() : op.offset;
}

}  // namespace

Task<Result<Opened>> FileClient::open(InodeId ino, OpenOptions options) {
    InodeRef inode = cache_.get(ino);
    while (inode->told_not_open != 0) {
        co_await inode->flight_done.wait();
        inode = cache_.get(ino);
    }
    // A file without a name lives by its open handles, so the server has to know of each. So it has
    // where it is told that the file is closed, which may arrive long after.
    bool named = inode->attr.nlink() != 0;
    bool closed = inode->told_closed != 0 && !mutant("open_beside_a_release");
    if (named && !closed && !options.truncate && usable(*inode, pb::LEASE_READ)) {
        co_return add_open(std::move(inode), options.write);
    }
    OpenAsk ask(*this, inode);
    auto opened = co_await open_call(std::move(inode), options, &ask);
    ask.end();
    co_return opened;
}

Task<Result<Opened>> FileClient::open_call(InodeRef inode, OpenOptions options, OpenAsk* ask) {
    bool empties = options.truncate;
    if (empties && inode->meta_dirty()) {
        // The server must know that there are chunks to be collected.
        KDFS_CO_TRY(co_await flush_meta(inode, false));
    }
    pb::MetaRequest request;
    pb::Open& op = *request.mutable_open();
    op.set_ino(inode->ino.value);
    op.set_write(options.write);
    op.set_truncate(empties);
    op.set_want(options.write ? pb::LEASE_EXCLUSIVE : pb::LEASE_READ);
    if (empties) {
        // What was written before must not reach chunks that are being collected.
        ++inode->holds;
        while (inode->flights != 0) {
            co_await inode->flight_done.wait();
        }
    }
    auto reply = co_await call(std::move(request), ask);
    if (empties) {
        --inode->holds;
        inode->flight_done.pulse();
        pump(inode);
    }
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    inode = adopt(reply->attr());
    inode->meta_synced = inode->meta_synced && !empties;
    co_return add_open(std::move(inode), options.write);
}

void FileClient::release(OpenId id) {
    auto found = opens_.find(id);
    if (found == opens_.end()) {
        return;
    }
    InodeRef inode = std::move(found->second.inode);
    opens_.erase(found);
    --inode->opens;
    close_unused(*inode);
}

// Under a lease the server asks before it relies on a file not being open, unless it has no name
// left. Without, it is told; by the answer to the recall where one is under way, because a release
// says that all is written. Unless `sure` that no request under way may have opened it already, the
// server is told once those that are under way have ended.
void FileClient::close_unused(Inode& inode, bool sure) {
    if (!inode.closed() || !inode.server_open || inode.giving_back != 0) {
        return;
    }
    bool gone = inode.attr.nlink() == 0 && !inode.dirty() && !inode.meta_dirty();
    if (inode.lease != pb::LEASE_NONE && !gone) {
        return;
    }
    if (sure || open_asks_.empty()) {
        queue_release(inode, pb::LEASE_NONE, false);
    } else {
        suspect(inode.ino, inode.lease_seq);
    }
}

Status FileClient::take_write_error(OpenId id) {
    Status told = flush(id);
    auto file = open_file(id);
    if (file.ok()) {
        (*file)->errors_seen = (*file)->inode->write_errors;
    }
    return told;
}

// The kernel hides it from the application if an earlier part of the same write(2) went well, so
// the next fsync reports it nevertheless.
Status FileClient::hint_write_error(OpenId id) {
    auto file = open_file(id);
    if (!file.ok()) {
        return std::move(file).error();
    }
    uint64_t newest = (*file)->inode->write_errors;
    if ((*file)->errors_seen == newest || (*file)->errors_hinted == newest) {
        return {};
    }
    (*file)->errors_hinted = newest;
    return flush(id);
}

Status FileClient::flush(OpenId id) {
    auto file = open_file(id);
    if (!file.ok()) {
        return std::move(file).error();
    }
    Inode& inode = *(*file)->inode;
    if ((*file)->errors_seen == inode.write_errors) {
        return {};
    }
    inode.write_errors_told = inode.write_errors;
    return *inode.write_error;
}

// Asks for the exclusive lease. Success means that the server was asked and the attributes are
// current, not that the lease was given.
Task<Status> FileClient::want_exclusive(InodeRef inode) {
    pb::MetaRequest request;
    pb::Open& op = *request.mutable_open();
    op.set_ino(inode->ino.value);
    op.set_write(true);
    op.set_want(pb::LEASE_EXCLUSIVE);
    OpenAsk ask(*this, inode);
    auto reply = co_await call(std::move(request), &ask);
    ask.end();
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    adopt(reply->attr());
    co_return Status();
}

// True if the server knows that this session writes the file without the exclusive lease. False if
// it has given that lease, or the session that answered is over already: look again.
Task<Result<bool>> FileClient::known_as_writer(InodeRef inode, bool append) {
    bool ask = inode->writes_through % kWritesThrough == 0 || append || !inode->server_writes ||
               inode->lease != pb::LEASE_NONE;
    ++inode->writes_through;
    if (ask) {
        KDFS_CO_TRY(co_await want_exclusive(inode));
    }
    co_return inode->lease != pb::LEASE_EXCLUSIVE && inode->server_writes;
}

Task<Status> FileClient::kill_suid(InodeId ino) {
    pb::SetAttr kill;
    kill.set_ino(ino.value);
    kill.set_kill_suid(true);
    auto killed = co_await setattr_call(std::move(kill));
    if (!killed.ok()) {
        co_return std::move(killed).error();
    }
    co_return Status();
}

Task<Result<uint64_t>> FileClient::write(WriteOp op) {
    auto file = open_file(op.id);
    if (!file.ok()) {
        co_return std::move(file).error();
    }
    InodeRef inode = (*file)->inode;
    KDFS_CO_TRY(hint_write_error(op.id));
    uint64_t bytes = op.data.size();
    if (bytes == 0) {
        co_return bytes;
    }
    if (op.offset > kFileBytesMax - bytes) {
        co_return Error(Errc::kFileTooBig, "a file ends at 2^60 bytes at most");
    }
    if (op.kill_suid && (inode->attr.mode() & (S_ISUID | S_ISGID)) != 0) {
        KDFS_CO_TRY(co_await kill_suid(inode->ino));
    }
    while (true) {
        KDFS_CO_TRY(regular_file(*inode));
        if (inode->lease == pb::LEASE_EXCLUSIVE && !session_.usable()) {
            bool back = co_await session_.wait_usable(env_.now() + options_.patience);
            if (!back) {
                co_return Error(Errc::kTimeout, "the metadata server cannot be reached");
            }
            continue;
        }
        if (usable(*inode, pb::LEASE_EXCLUSIVE)) {
            if (buffered_ != 0 && buffered_ + bytes > options_.write_buffer_bytes) {
                drain_all();
                co_await room_.wait();
                KDFS_CO_TRY(hint_write_error(op.id));
                continue;
            }
            buffer_write(inode, write_begin(*inode, op), op.data);
            co_return bytes;
        }
        KDFS_CO_TRY_ASSIGN(bool known, co_await known_as_writer(inode, op.append));
        file = open_file(op.id);
        if (!file.ok()) {
            co_return std::move(file).error();
        }
        if (!known) {
            continue;
        }
        uint64_t at = write_begin(*inode, op);
        KDFS_CO_TRY(co_await write_through(inode, at, op.data));
        co_return bytes;
    }
}

void FileClient::grow(const InodeRef& inode, uint64_t size) {
    Inode& i = *inode;
    if (!i.meta_dirty()) {
        i.meta_dirty_since = env_.now();
        meta_dirty_.emplace(i.ino, inode);
        wake_background_.set();
    }
    if (size > i.attr.size()) {
        i.attr.set_size(size);
        i.size_dirty = true;
        i.size_synced = false;
        i.meta_synced = false;
    }
    WallTime now = time_after(std::max(i.attr.mtime(), i.attr.ctime()));
    i.attr.set_mtime(now);
    i.attr.set_ctime(now);
    i.times_dirty = true;
}

void FileClient::buffer_write(const InodeRef& inode, uint64_t offset, const Buffer& data) {
    Inode& i = *inode;
    uint64_t piece = piece_bytes(i.attr.layout());
    if (!i.buffer) {
        i.buffer = std::make_unique<WriteBuffer>(piece);
    }
    uint64_t before = i.buffer->bytes();
    if (i.buffer->dirty_bytes() == 0) {
        i.dirty_since = env_.now();
    }
    i.buffer->write(offset, data);
    buffered_ += i.buffer->bytes() - before;
    if (!i.fetched.empty()) {
        drop_fetched(i, offset / piece, (offset + data.size() - 1) / piece);
    }
    grow(inode, offset + data.size());
    if (dirty_.emplace(i.ino, inode).second) {
        wake_background_.set();
    }
    pump(inode);
    if (buffered_ > options_.write_buffer_bytes / 2) {
        drain_all();
    }
}

// Several clients write this file: the bytes go to the chunks, and size and time to the server,
// before the write returns. Also of a write that fails the server is told how far it went: what
// the chunks have beyond the size would belong to nobody. It belongs to the session there is when
// this is called, which the server knows as a writer's.
Task<Status> FileClient::write_through(InodeRef inode, uint64_t offset, Buffer data) {
    SessionId session = session_.session();
    // The file may be cut meanwhile: then the bytes may be gone again, or belong to other data.
    constexpr int kCutsMax = 16;
    for (int i = 0; i < kCutsMax; ++i) {
        DataId data_id(inode->attr.data());
        uint64_t cut = inode->attr.cut();
        PiecesWritten written = co_await write_pieces(session, inode, data_id, offset, data);
        bool lost = !written.status.ok() && written.status.error().code == Errc::kFenced;
        if (lost || written.end_bytes <= offset) {
            co_return std::move(written.status);
        }
        pb::MetaRequest request;
        pb::Flush& op = *request.mutable_flush();
        op.set_ino(inode->ino.value);
        op.set_size(written.end_bytes);
        op.set_mtime(time_after(inode->attr.mtime()));
        op.set_cut(cut);
        auto reply = co_await call(std::move(request));
        if (reply.ok()) {
            adopt(reply->attr());
            inode->meta_synced = false;
        }
        KDFS_CO_TRY(std::move(written.status));
        if (!reply.ok()) {
            co_return std::move(reply).error();
        }
        if (reply->attr().cut() <= cut) {
            co_return Status();
        }
    }
    co_return Error(Errc::kBusy,
                    "inode " + std::to_string(inode->ino.value) +
                        " is being truncated again and again by others");
}

Task<FileClient::PiecesWritten> FileClient::write_pieces(SessionId session,
                                                         InodeRef inode,
                                                         DataId data_id,
                                                         uint64_t offset,
                                                         Buffer data) {
    PiecesWritten out;
    pb::Layout layout = inode->attr.layout();
    inode->unwritten = false;
    auto map = co_await map_with(layout);
    if (!map.ok()) {
        out.status = std::move(map).error();
        co_return out;
    }
    const pb::ChainTable* table = (*map)->table(layout.table());
    std::vector<PieceRange> ranges = split_range(layout, *table, data_id, offset, data.size());
    std::vector<Task<Result<uint64_t>>> tasks;
    for (const PieceRange& range : ranges) {
        BufferChain part(data.slice(range.file_offset - offset, range.length));
        ChunkWrite what(range.chunk, range.chain, range.piece_offset, std::move(part), session);
        tasks.push_back(chunks_.write(std::move(what)));
    }
    std::vector<Result<uint64_t>> results = co_await when_all(scope_, std::move(tasks));
    // What was fetched before or meanwhile lacks these bytes.
    drop_fetched(*inode, ranges.front().chunk.index, ranges.back().chunk.index);
    for (size_t i = 0; i < results.size(); ++i) {
        if (results[i].ok()) {
            inode->unsynced.emplace(ranges[i].chain, *results[i]);
        }
        // Of other failures nobody knows whether they reached the chunk.
        if (results[i].ok() || results[i].error().code != Errc::kNoSpace) {
            out.end_bytes = ranges[i].file_offset + ranges[i].length;
        }
        if (!results[i].ok() && out.status.ok()) {
            out.status = std::move(results[i]).error();
        }
    }
    co_return out;
}

Task<Status> FileClient::fsync(OpenId id, bool data_only) {
    auto file = open_file(id);
    if (!file.ok()) {
        co_return std::move(file).error();
    }
    InodeRef inode = (*file)->inode;
    SemaphoreHold turn = co_await inode->syncing.lock();
    std::vector<Task<Status>> tasks;
    tasks.push_back(sync_data(inode));
    tasks.push_back(sync_meta(inode, data_only));
    std::vector<Status> results = co_await when_all(scope_, std::move(tasks));
    KDFS_CO_TRY(take_write_error(id));
    for (Status& result : results) {
        KDFS_CO_TRY(std::move(result));
    }
    co_return Status();
}

Task<Status> FileClient::sync_data(InodeRef inode) {
    if (inode->dirty()) {
        bool few = inode->flights == 0 && inode->buffer->ready_pieces() <= kSyncRunsMax;
        inode->sync_runs = few;
        co_await drain(inode);
        inode->sync_runs = false;
    }
    if (inode->unsynced.empty() || mutant("fsync_without_chains")) {
        co_return Status();
    }
    env_.fault_point("client.fsync.before_chains");
    std::map<ChainId, uint64_t> written = std::move(inode->unsynced);
    inode->unsynced.clear();
    std::map<ChainId, uint64_t> asked = written;
    Status synced = co_await chunks_.sync(std::move(asked));
    // Lost data is reported once; after any other error the next fsync tries again.
    if (!synced.ok() && synced.error().code != Errc::kLostData) {
        for (auto& [chain, losses] : written) {
            inode->unsynced[chain] = losses;
        }
    }
    co_return synced;
}

Task<Status> FileClient::sync_meta(InodeRef inode, bool data_only) {
    bool only_times = inode->size_synced && !inode->size_dirty;
    if (inode->meta_synced || (data_only && only_times)) {
        // The times of writes follow by themselves, soon.
        inode->meta_dirty_since =
            std::min(inode->meta_dirty_since, env_.now() - kMetaDirtyAge + kSyncedTimesAge);
        co_return Status();
    }
    if (inode->meta_dirty()) {
        co_return co_await flush_meta(inode, true);
    }
    pb::MetaRequest request;
    request.mutable_sync();
    inode->meta_synced = true;
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        inode->meta_synced = false;
        co_return std::move(reply).error();
    }
    co_return Status();
}

Task<Status> FileClient::fsync_directory() {
    pb::MetaRequest request;
    request.mutable_sync();
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return Status();
}

// Tells the server size and times.
Task<Status> FileClient::flush_meta(InodeRef inode, bool sync) {
    pb::MetaRequest request;
    pb::Flush& op = *request.mutable_flush();
    uint64_t size = inode->attr.size();
    int64_t mtime = inode->attr.mtime();
    uint64_t seq = inode->lease_seq;
    op.set_ino(inode->ino.value);
    op.set_size(size);
    op.set_mtime(mtime);
    op.set_atime(inode->attr.atime());
    op.set_sync(sync);
    op.set_cut(inode->attr.cut());
    inode->meta_synced = sync;
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        inode->meta_synced = false;
        co_return std::move(reply).error();
    }
    if (inode->lease_seq == seq) {
        // What was written meanwhile is still to be told; of the size the attributes say so.
        inode->times_dirty = inode->times_dirty && inode->attr.mtime() != mtime;
    }
    inode->size_synced = inode->size_synced || (sync && !inode->size_dirty);
    adopt(reply->attr());
    if (!inode->meta_dirty()) {
        meta_dirty_.erase(inode->ino);
    }
    co_return Status();
}

}  // namespace kdfs::client
