#include "client/write_buffer.h"

#include "kdfs/base/check.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

namespace kdfs::client {

void WriteBuffer::write(uint64_t offset, const Buffer& data) {
    ++stamp_;
    uint64_t at = 0;
    while (at < data.size()) {
        uint64_t within = (offset + at) % piece_bytes_;
        uint64_t take = std::min<uint64_t>(data.size() - at, piece_bytes_ - within);
        write_piece((offset + at) / piece_bytes_, within, data.slice(at, take));
        at += take;
    }
}

void WriteBuffer::write_piece(uint64_t index, uint64_t offset, const Buffer& data) {
    Piece& piece = pieces_[index];
    if (piece.dirty_bytes == 0) {
        piece.first_stamp = stamp_;
    }
    cut(piece, offset, offset + data.size());
    if (data.size() >= kCopyBytes) {
        piece.extents.emplace(offset, data);
    } else if (!append_to_arena(piece, offset, data)) {
        Buffer copy = into_new_arena(piece, offset, data);
        piece.extents.emplace(offset, std::move(copy));
    }
    piece.dirty_bytes += data.size();
    dirty_bytes_ += data.size();
    update_ready(index, piece);
}

bool WriteBuffer::append_to_arena(Piece& piece, uint64_t offset, const Buffer& data) {
    if (piece.arena.empty() || offset != piece.arena_start + piece.arena_used ||
        data.size() > piece.arena.size() - piece.arena_used) {
        return false;
    }
    auto extent = piece.extents.find(piece.arena_start);
    if (extent == piece.extents.end() || extent->second.size() != piece.arena_used ||
        extent->second.data() != piece.arena.data()) {
        return false;
    }
    std::memcpy(piece.arena.mutable_data() + piece.arena_used, data.data(), data.size());
    piece.arena_used += data.size();
    extent->second = piece.arena.slice(0, piece.arena_used);
    return true;
}

Buffer WriteBuffer::into_new_arena(Piece& piece, uint64_t offset, const Buffer& data) {
    bool follows = !piece.arena.empty() && offset == piece.arena_start + piece.arena_used;
    uint64_t capacity = data.size();
    if (follows) {
        // A writer of many small pieces: twice the room each time.
        capacity = std::max(capacity, std::min(2 * piece.arena.size(), kArenaBytesMax));
    }
    capacity = std::min(std::max<uint64_t>(capacity, 512), piece_bytes_ - offset);
    piece.arena = Buffer::allocate(std::max<uint64_t>(capacity, data.size()));
    piece.arena_start = offset;
    piece.arena_used = data.size();
    std::memcpy(piece.arena.mutable_data(), data.data(), data.size());
    return piece.arena.slice(0, data.size());
}

// Takes [offset, end) out of the dirty extents.
void WriteBuffer::cut(Piece& piece, uint64_t offset, uint64_t end) {
    auto it = piece.extents.lower_bound(offset);
    if (it != piece.extents.begin()) {
        auto before = std::prev(it);
        if (before->first + before->second.size() > offset) {
            it = before;
        }
    }
    while (it != piece.extents.end() && it->first < end) {
        uint64_t start = it->first;
        Buffer old = std::move(it->second);
        it = piece.extents.erase(it);
        uint64_t stop = start + old.size();
        if (start < offset) {
            piece.extents.emplace(start, old.slice(0, offset - start));
        }
        if (stop > end) {
            piece.extents.emplace(end, old.slice(end - start, stop - end));
        }
        uint64_t gone = std::min(stop, end) - std::max(start, offset);
        piece.dirty_bytes -= gone;
        dirty_bytes_ -= gone;
    }
}

void WriteBuffer::update_ready(uint64_t index, const Piece& piece) {
    if (!piece.in_flight && piece.dirty_bytes > 0) {
        ready_.insert(index);
    } else {
        ready_.erase(index);
    }
    if (!piece.in_flight && piece.dirty_bytes == piece_bytes_) {
        full_.insert(index);
    } else {
        full_.erase(index);
    }
}

void WriteBuffer::overlay(uint64_t offset, uint64_t length, std::vector<Overlay>& out) const {
    uint64_t end = offset + length;
    auto add = [&](uint64_t at, const Buffer& data) {
        uint64_t from = std::max(at, offset);
        uint64_t to = std::min<uint64_t>(at + data.size(), end);
        if (from < to) {
            out.push_back({from, data.slice(from - at, to - from)});
        }
    };
    for (auto it = pieces_.lower_bound(offset / piece_bytes_);
         it != pieces_.end() && it->first * piece_bytes_ < end;
         ++it) {
        uint64_t base = it->first * piece_bytes_;
        const Piece& piece = it->second;
        uint64_t at = base + piece.flight_offset;
        for (const Buffer& data : piece.flight.pieces()) {
            add(at, data);
            at += data.size();
        }
        for (const auto& [start, data] : piece.extents) {
            add(base + start, data);
        }
    }
}

bool WriteBuffer::covers(uint64_t offset, uint64_t length) const {
    uint64_t at = offset;
    uint64_t end = offset + length;
    while (at < end) {
        auto found = pieces_.find(at / piece_bytes_);
        if (found == pieces_.end()) {
            return false;
        }
        const Piece& piece = found->second;
        uint64_t within = at % piece_bytes_;
        uint64_t reach = within;
        if (piece.in_flight && piece.flight_offset <= within) {
            reach = std::max<uint64_t>(reach, piece.flight_offset + piece.flight.size());
        }
        auto it = piece.extents.upper_bound(within);
        if (it != piece.extents.begin()) {
            --it;
            reach = std::max<uint64_t>(reach, it->first + it->second.size());
        }
        if (reach <= within) {
            return false;
        }
        at += reach - within;
    }
    return true;
}

std::optional<WriteBuffer::Run> WriteBuffer::take(Take what) {
    const std::set<uint64_t>& from = what == Take::kFullPieces ? full_ : ready_;
    if (from.empty()) {
        return std::nullopt;
    }
    Run run;
    run.piece = *from.begin();
    Piece& piece = pieces_.at(run.piece);
    auto it = piece.extents.begin();
    run.offset = it->first;
    uint64_t at = run.offset;
    while (it != piece.extents.end() && it->first == at) {
        at += it->second.size();
        run.data.append(std::move(it->second));
        it = piece.extents.erase(it);
    }
    piece.in_flight = true;
    piece.flight_offset = run.offset;
    piece.flight_stamp = piece.first_stamp;
    piece.flight = run.data;
    piece.dirty_bytes -= run.data.size();
    dirty_bytes_ -= run.data.size();
    flight_bytes_ += run.data.size();
    update_ready(run.piece, piece);
    return run;
}

void WriteBuffer::done(uint64_t index) {
    auto found = pieces_.find(index);
    KDFS_CHECK(found != pieces_.end() && found->second.in_flight);
    Piece& piece = found->second;
    flight_bytes_ -= piece.flight.size();
    piece.in_flight = false;
    piece.flight = BufferChain();
    if (piece.dirty_bytes == 0) {
        pieces_.erase(found);
    } else {
        update_ready(index, piece);
    }
}

void WriteBuffer::truncate(uint64_t size) {
    auto it = pieces_.lower_bound(size / piece_bytes_);
    while (it != pieces_.end()) {
        Piece& piece = it->second;
        uint64_t base = it->first * piece_bytes_;
        cut(piece, size > base ? size - base : 0, piece_bytes_);
        update_ready(it->first, piece);
        if (piece.dirty_bytes == 0 && !piece.in_flight) {
            it = pieces_.erase(it);
        } else {
            ++it;
        }
    }
}

std::vector<uint64_t> WriteBuffer::pieces() const {
    std::vector<uint64_t> out;
    out.reserve(pieces_.size());
    for (const auto& [index, piece] : pieces_) {
        out.push_back(index);
    }
    return out;
}

bool WriteBuffer::clean_up_to(uint64_t index, uint64_t stamp) const {
    auto found = pieces_.find(index);
    if (found == pieces_.end()) {
        return true;
    }
    const Piece& piece = found->second;
    bool flight_clean = !piece.in_flight || piece.flight_stamp > stamp;
    return flight_clean && (piece.dirty_bytes == 0 || piece.first_stamp > stamp);
}

}  // namespace kdfs::client
