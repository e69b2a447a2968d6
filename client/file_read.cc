// Reading: what FileClient does with data on its way in.

#include "client/file_client.h"
#include "client/overlay.h"
#include "kdfs/proto/layout.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace kdfs::client {

// A client that was shut out and comes back reads on: the file is still there, and what this client
// had not written of it is reported by write, fsync and close. All of it is read again, because
// others may have changed the file since.
Task<Result<BufferChain>> FileClient::read(OpenId id, uint64_t offset, uint64_t length) {
    TimePoint deadline = env_.now() + options_.patience;
    while (true) {
        SessionId session = session_.session();
        auto data = co_await read_under(session, id, offset, length);
        if (data.ok() || data.error().code != Errc::kFenced) {
            co_return data;
        }
        bool another = co_await session_.wait_for_another(session, deadline);
        if (!another) {
            co_return data;
        }
    }
}

// kFenced if `session` ends before everything is read.
Task<Result<BufferChain>> FileClient::read_under(SessionId session,
                                                 OpenId id,
                                                 uint64_t offset,
                                                 uint64_t length) {
    auto file = open_file(id);
    if (!file.ok()) {
        co_return std::move(file).error();
    }
    ReadView view;
    view.session = session;
    view.inode = (*file)->inode;
    Inode& inode = *view.inode;
    if (!usable(inode, pb::LEASE_READ)) {
        auto current = co_await fresh(inode.ino);
        if (!current.ok()) {
            co_return std::move(current).error();
        }
    }
    KDFS_CO_TRY(regular_file(inode));
    uint64_t size = inode.attr.size();
    if (offset >= size || length == 0) {
        co_return BufferChain();
    }
    length = std::min(length, size - offset);
    view.data = DataId(inode.attr.data());
    view.layout = inode.attr.layout();
    auto map = co_await map_with(view.layout);
    if (!map.ok()) {
        co_return std::move(map).error();
    }
    view.map = std::move(*map);
    if (session_.session() != session) {
        co_return Error(Errc::kFenced,
                        "inode " + std::to_string(inode.ino.value) +
                            ": the session was lost before the read was done");
    }
    view.cached = usable(inode, pb::LEASE_READ);
    file = open_file(id);
    if (file.ok() && view.cached && options_.read_ahead_bytes != 0) {
        ReadAhead::Plan plan = (*file)->ahead.on_read(offset, length, size);
        view.sequential = plan.sequential;
        for (uint64_t piece = plan.first; piece < plan.beyond; ++piece) {
            fetch(view, piece);
        }
    }
    InodeRef read_from = view.inode;
    bool may_end = !view.cached && (read_from->attr.nlink() == 0 || !read_from->server_open);
    auto data = co_await read_range(std::move(view), offset, length);
    if (data.ok() && may_end) {
        // It ends when it has no name and the last session with it open closes it, and this one may
        // not count as one: then chunks that are gone were read as zeros.
        auto still = co_await fresh(read_from->ino);
        if (!still.ok()) {
            co_return std::move(still).error();
        }
    }
    co_return data;
}

Task<Result<BufferChain>> FileClient::read_range(ReadView view, uint64_t offset, uint64_t length) {
    // What is newer than the chunks, as it is now: a write may move it to the chunks while they
    // are being read.
    std::vector<WriteBuffer::Overlay> over;
    bool covered = false;
    if (view.inode->buffer) {
        view.inode->buffer->overlay(offset, length, over);
        covered = !over.empty() && view.inode->buffer->covers(offset, length);
    }
    BufferChain base;
    if (covered) {
        pad_with_zeros(base, length, zeros_);
        co_return lay_over(base, offset, over);
    }
    const pb::ChainTable* table = view.map->table(view.layout.table());
    std::vector<PieceRange> ranges = split_range(view.layout, *table, view.data, offset, length);
    if (ranges.size() == 1) {
        auto data = co_await read_piece(std::move(view), ranges[0]);
        if (!data.ok()) {
            co_return std::move(data).error();
        }
        pad_with_zeros(*data, length, zeros_);
        co_return lay_over(*data, offset, over);
    }
    std::vector<Task<Result<BufferChain>>> tasks;
    tasks.reserve(ranges.size());
    for (const PieceRange& range : ranges) {
        tasks.push_back(read_piece(view, range));
    }
    std::vector<Result<BufferChain>> parts = co_await when_all(scope_, std::move(tasks));
    for (size_t i = 0; i < parts.size(); ++i) {
        if (!parts[i].ok()) {
            co_return std::move(parts[i]).error();
        }
        pad_with_zeros(*parts[i], ranges[i].length, zeros_);
        base.append(*parts[i]);
    }
    co_return lay_over(base, offset, over);
}

Task<Result<BufferChain>> FileClient::read_piece(ReadView view, PieceRange range) {
    std::shared_ptr<FetchedPiece> fetched;
    if (view.cached) {
        auto found = view.inode->fetched.find(range.chunk.index);
        if (found != view.inode->fetched.end()) {
            fetched = found->second;
        } else if (view.sequential) {
            fetched = fetch(view, range.chunk.index);
        }
    }
    if (fetched && range.piece_offset + range.length > fetched->length) {
        // The file has become larger since.
        drop_fetched(*view.inode, range.chunk.index, range.chunk.index);
        fetched = nullptr;
    }
    if (fetched) {
        co_await fetched->done.wait();
        if (fetched->data.ok()) {
            uint64_t piece = piece_bytes(view.layout);
            uint64_t end = range.piece_offset + range.length;
            if (end >= std::min(piece, fetched->data->size())) {
                // Read to its end: the kernel has it now.
                drop_fetched(*view.inode, range.chunk.index, range.chunk.index);
            }
            uint64_t from = std::min<uint64_t>(range.piece_offset, fetched->data->size());
            uint64_t take = std::min<uint64_t>(range.length, fetched->data->size() - from);
            co_return fetched->data->slice(from, take);
        }
        drop_fetched(*view.inode, range.chunk.index, range.chunk.index);
    }
    ChunkRead what(range.chunk, range.chain, range.piece_offset, range.length, view.session);
    what.known_damaged = view.inode->damage_told;
    auto data = co_await chunks_.read(what);
    if (!data.ok() && data.error().code == Errc::kCorrupt) {
        tell_damage(*view.inode, range, data.error());
        co_return Error(
            Errc::kCorrupt,
            "inode " + std::to_string(view.inode->ino.value) + ": " + data.error().detail);
    }
    co_return data;
}

// Once per file: its reader gets EIO, which says nothing.
void FileClient::tell_damage(Inode& inode, const PieceRange& range, const Error& cause) {
    if (std::exchange(inode.damage_told, true)) {
        return;
    }
    uint64_t begin = range.chunk.index * piece_bytes(inode.attr.layout()) + range.piece_offset;
    LogEvent(env_.log(), LogLevel::kError, "file cannot be read: a chunk is damaged on all nodes")
        .with("path", cache_.known_path(inode.ino))
        .with("inode", inode.ino)
        .with("offset", begin)
        .with("bytes", range.length)
        .with("chunk", to_string(range.chunk))
        .with("cause", cause.detail)
        .with("next", "restore the file from a backup, or remove it");
}

// The piece as a whole, being fetched or there already.
std::shared_ptr<FetchedPiece> FileClient::fetch(const ReadView& view, uint64_t piece) {
    std::shared_ptr<FetchedPiece>& entry = view.inode->fetched[piece];
    if (!entry) {
        entry = std::make_shared<FetchedPiece>();
        uint64_t bytes = piece_bytes(view.layout);
        fetched_bytes_ += bytes;
        fetch_order_.emplace_back(view.inode, piece);
        std::shared_ptr<FetchedPiece> made = entry;
        scope_.spawn_now(fetch_piece(view, piece, made));
        shrink_fetched();
        return made;
    }
    return entry;
}

Task<void> FileClient::fetch_piece(ReadView view,
                                   uint64_t piece,
                                   std::shared_ptr<FetchedPiece> into) {
    const pb::ChainTable* table = view.map->table(view.layout.table());
    uint64_t bytes = piece_bytes(view.layout);
    uint64_t size = view.inode->attr.size();
    into->length = std::min(bytes, size - std::min(size, piece * bytes));
    ChunkId chunk;
    chunk.data = view.data;
    chunk.index = piece;
    ChainId chain = chain_of_piece(view.layout, *table, piece);
    if (into->length != 0) {
        ChunkRead what(chunk, chain, 0, into->length, view.session);
        what.known_damaged = view.inode->damage_told;
        into->data = co_await chunks_.read(what);
    }
    into->done.set();
}

// Who waits for one of them already still gets it: it asked before this.
void FileClient::drop_fetched(Inode& inode, uint64_t first_piece, uint64_t last_piece) {
    auto it = inode.fetched.lower_bound(first_piece);
    while (it != inode.fetched.end() && it->first <= last_piece) {
        fetched_bytes_ -= piece_bytes(inode.attr.layout());
        it = inode.fetched.erase(it);
    }
}

void FileClient::shrink_fetched() {
    while (!fetch_order_.empty()) {
        auto& [weak, piece] = fetch_order_.front();
        InodeRef inode = weak.lock();
        bool there = inode && inode->fetched.contains(piece);
        if (there && fetched_bytes_ <= options_.read_cache_bytes) {
            break;
        }
        if (there) {
            drop_fetched(*inode, piece, piece);
        }
        fetch_order_.pop_front();
    }
}

}  // namespace kdfs::client
