// Write-behind: what FileClient does with buffered data until it is in the chunks.

#include "client/file_client.h"
#include "kdfs/proto/layout.h"

#include <algorithm>
#include <utility>

namespace kdfs::client {
namespace {

// A run of more buffers than this is copied together: each becomes an entry in a list the kernel
// goes through, which has at most 1024.
constexpr size_t kBuffersPerRunMax = 64;

}  // namespace

// Starts what may go out now.
void FileClient::pump(const InodeRef& inode) {
    Inode& i = *inode;
    if (!i.buffer || (i.holds != 0 && i.forces == 0)) {
        return;
    }
    bool everything = i.drains != 0 || i.drain_once || i.forces != 0;
    WriteBuffer::Take what =
        everything ? WriteBuffer::Take::kEverything : WriteBuffer::Take::kFullPieces;
    Durability durability = i.sync_runs ? Durability::kSynced : Durability::kCommitted;
    while (i.flights < kRunsPerFileMax) {
        std::optional<WriteBuffer::Run> run = i.buffer->take(what);
        if (!run) {
            i.drain_once = false;
            break;
        }
        ++i.flights;
        i.unwritten = false;
        scope_.spawn_now(write_run(inode, std::move(*run), durability));
    }
}

Task<void> FileClient::write_run(InodeRef inode, WriteBuffer::Run run, Durability durability) {
    ChunkId chunk;
    chunk.data = DataId(inode->attr.data());
    chunk.index = run.piece;
    pb::Layout layout = inode->attr.layout();
    Result<uint64_t> written = uint64_t{0};
    ChainId chain;
    SessionId session = session_.session();
    auto map = co_await map_with(layout);
    if (map.ok()) {
        chain = chain_of_piece(layout, *(*map)->table(layout.table()), run.piece);
        if (run.data.pieces().size() > kBuffersPerRunMax) {
            run.data = BufferChain(run.data.flatten());
        }
        ChunkWrite what(chunk, chain, run.offset, std::move(run.data), session);
        what.durability = durability;
        written = co_await chunks_.write(std::move(what));
    } else {
        written = std::move(map).error();
    }
    env_.fault_point("client.write.before_done");
    if (!written.ok()) {
        // Once per error that is reported: the search looks through all names.
        std::string path = inode->untold_error() ? "" : cache_.known_path(inode->ino);
        LogEvent(env_.log(), LogLevel::kError, "write lost")
            .with("path", path)
            .with("inode", inode->ino)
            .with("chunk", to_string(chunk))
            .with("cause", written.error().to_string());
        keep_write_error(*inode, std::move(written).error(), session);
    } else if (durability == Durability::kCommitted) {
        inode->unsynced.emplace(chain, *written);
    }
    uint64_t before = inode->buffer->bytes();
    inode->buffer->done(run.piece);
    // What was fetched of it meanwhile lacks these bytes.
    drop_fetched(*inode, run.piece, run.piece);
    buffered_ -= before - inode->buffer->bytes();
    --inode->flights;
    room_.pulse();
    inode->flight_done.pulse();
    pump(inode);
    if (inode->buffer->empty()) {
        inode->sync_runs = false;
        dirty_.erase(inode->ino);
    } else if (inode->buffer->dirty_bytes() != 0 && inode->flights == 0) {
        inode->dirty_since = std::max(inode->dirty_since, env_.now() - kDirtyAge);
    }
}

// What comes of a write that failed after its caller went on. It was made under `session`.
void FileClient::keep_write_error(Inode& inode, Error error, SessionId session) {
    if (error.code == Errc::kFenced && session != session_.session()) {
        return;  // lose_lease() found it under way and reported it.
    }
    if (error.code == Errc::kFenced) {
        error = Error(Errc::kLostData, std::move(error.detail));
    }
    add_write_error(inode, std::move(error));
}

void FileClient::add_write_error(Inode& inode, Error error) {
    if (inode.untold_error()) {
        return;
    }
    inode.write_error = std::move(error);
    ++inode.write_errors;
}

// Returns when everything that was written before is in the chunks or was given up with an error.
Task<void> FileClient::drain(InodeRef inode) {
    if (!inode->dirty()) {
        co_return;
    }
    struct Count {
        explicit Count(size_t& c) : counter(c) { ++counter; }
        ~Count() { --counter; }
        size_t& counter;
    };
    Count count(inode->drains);
    uint64_t stamp = inode->buffer->stamp();
    std::vector<uint64_t> pieces = inode->buffer->pieces();
    pump(inode);
    while (!pieces.empty()) {
        if (!inode->buffer || inode->buffer->clean_up_to(pieces.back(), stamp)) {
            pieces.pop_back();
            continue;
        }
        co_await inode->flight_done.wait();
    }
}

void FileClient::drain_all() {
    for (auto& [ino, inode] : dirty_) {
        inode->drain_once = true;
    }
    // pump() may finish a run at once and change the list.
    std::vector<InodeRef> dirty;
    for (auto& [ino, inode] : dirty_) {
        dirty.push_back(inode);
    }
    for (const InodeRef& inode : dirty) {
        pump(inode);
    }
}

// The file's unwritten bytes beyond this are no longer wanted. Those on their way arrive or fail.
void FileClient::forget_dirty(Inode& inode, uint64_t beyond) {
    if (!inode.buffer) {
        return;
    }
    uint64_t before = inode.buffer->bytes();
    inode.buffer->truncate(beyond);
    buffered_ -= before - inode.buffer->bytes();
    if (inode.buffer->empty()) {
        dirty_.erase(inode.ino);
    }
    room_.pulse();
    inode.flight_done.pulse();
}

Task<void> FileClient::background() {
    while (!stopping_) {
        if (dirty_.empty() && meta_dirty_.empty() && suspects_.empty()) {
            co_await wake_background_.wait();
        }
        if (stopping_) {
            break;
        }
        wake_background_.reset();
        co_await wake_background_.wait_until(env_.now() + kBackgroundTurn);
        if (!stopping_) {
            background_turn();
        }
    }
}

void FileClient::background_turn() {
    std::vector<InodeRef> old;
    for (auto& [ino, inode] : dirty_) {
        if (inode->dirty_since + kDirtyAge <= env_.now()) {
            old.push_back(inode);
        }
    }
    for (const InodeRef& inode : old) {
        inode->drain_once = true;
        pump(inode);
    }
    send_idle_meta();
    check_suspects();
}

void FileClient::suspect(InodeId ino, uint64_t lease_seq) {
    Suspect entry;
    entry.lease_seq = lease_seq;
    entry.asks_before = next_open_ask_;
    suspects_[ino] = entry;
    wake_background_.set();
}

// The server knows a release from before an open by the number of the last lease. So requests that
// were made since do not matter, unless the lease was given anew.
void FileClient::check_suspects() {
    uint64_t oldest = open_asks_.empty() ? next_open_ask_ : *open_asks_.begin();
    std::vector<std::pair<InodeId, uint64_t>> ripe;
    for (auto it = suspects_.begin(); it != suspects_.end();) {
        if (it->second.asks_before > oldest) {
            ++it;
            continue;
        }
        ripe.emplace_back(it->first, it->second.lease_seq);
        it = suspects_.erase(it);
    }
    for (auto& [ino, seq] : ripe) {
        InodeRef inode = cache_.find(ino);
        if (!inode) {
            inode = cache_.get(ino);
            inode->lease_seq = seq;
            inode->server_open = true;
        }
        close_unused(*inode, inode->lease_seq == seq);
    }
}

// Sizes and times that the server has not heard for a while. Files that are closed go back to a
// read lease, many in one call.
void FileClient::send_idle_meta() {
    std::vector<InodeRef> due;
    size_t too_many = meta_dirty_.size() - std::min(meta_dirty_.size(), kMetaDirtyMax);
    size_t most = std::clamp(too_many, kReleaseBatch, kMetaPerTurnMax);
    for (auto& [ino, inode] : meta_dirty_) {
        if (due.size() >= most) {
            break;
        }
        bool old = inode->meta_dirty_since + kMetaDirtyAge <= env_.now();
        if ((old || due.size() < too_many) && !inode->dirty()) {
            due.push_back(inode);
        }
    }
    for (const InodeRef& inode : due) {
        meta_dirty_.erase(inode->ino);
        if (!inode->meta_dirty()) {
            continue;
        }
        inode->meta_dirty_since = env_.now();
        if (inode->lease != pb::LEASE_EXCLUSIVE) {
            // Told when the lease was given back, but nothing shows that it arrived.
            queue_release(*inode, inode->lease, !inode->closed());
        } else if (inode->closed()) {
            queue_release(*inode, pb::LEASE_READ, false);
        } else {
            scope_.spawn(flush_quietly(inode));
        }
    }
}

Task<void> FileClient::flush_quietly(InodeRef inode) {
    Status flushed = co_await flush_meta(inode, false);
    if (inode->meta_dirty()) {
        meta_dirty_.emplace(inode->ino, inode);
    }
}

}  // namespace kdfs::client
