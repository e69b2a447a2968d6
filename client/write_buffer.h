#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/types.h"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

namespace kdfs::client {

// The bytes of one file that the application has written and the chunks do not have yet. Pure.
//
// Bytes are *dirty* until take() gives them out as a run, then *in flight* until done(). At most
// one run of a piece is in flight. Both kinds are newer than what the chunks have, dirty ones newer
// than those in flight: overlay() lays them over what was read. Memory of large writes is shared
// with the caller; small ones (below kCopyBytes) are copied and gathered.
class WriteBuffer {
public:
    static constexpr uint64_t kCopyBytes = 32 * KiB;
    static constexpr uint64_t kArenaBytesMax = 256 * KiB;

    struct Run {
        uint64_t piece = 0;
        uint64_t offset = 0;  // in the piece
        BufferChain data;
    };
    struct Overlay {
        uint64_t offset = 0;  // in the file
        Buffer data;
    };
    enum class Take { kFullPieces, kEverything };

    explicit WriteBuffer(uint64_t piece_bytes) : piece_bytes_(piece_bytes) {}

    void write(uint64_t offset, const Buffer& data);
    // What lies over [offset, offset + length), oldest first: later ones win.
    void overlay(uint64_t offset, uint64_t length, std::vector<Overlay>& out) const;
    // True if [offset, offset + length) is dirty or in flight as a whole.
    bool covers(uint64_t offset, uint64_t length) const;
    // The next run to send, lowest piece first. kFullPieces gives only pieces that are dirty from
    // end to end.
    std::optional<Run> take(Take what);
    // The run of this piece is in the chunk, or given up.
    void done(uint64_t piece);
    // Forgets dirty bytes from `size` on. Bytes in flight stay.
    void truncate(uint64_t size);

    // Pieces with dirty bytes or a run in flight.
    std::vector<uint64_t> pieces() const;
    // Counts up with each write; the current value names the moment.
    uint64_t stamp() const { return stamp_; }
    // True if nothing of the piece that was written up to `stamp` is still here.
    bool clean_up_to(uint64_t piece, uint64_t stamp) const;
    uint64_t dirty_bytes() const { return dirty_bytes_; }
    uint64_t bytes() const { return dirty_bytes_ + flight_bytes_; }
    bool empty() const { return pieces_.empty(); }
    size_t ready_pieces() const { return ready_.size(); }

private:
    struct Piece {
        std::map<uint64_t, Buffer> extents;  // dirty, by offset, never overlapping
        uint64_t dirty_bytes = 0;
        uint64_t first_stamp = 0;  // of the oldest dirty byte
        bool in_flight = false;
        uint64_t flight_offset = 0;
        uint64_t flight_stamp = 0;
        BufferChain flight;
        // Where small writes that follow each other are gathered: the extent that starts at
        // arena_start is a slice of the arena, and bytes behind arena_used are nobody's yet.
        Buffer arena;
        uint64_t arena_start = 0;
        uint64_t arena_used = 0;
    };

    void write_piece(uint64_t index, uint64_t offset, const Buffer& data);
    bool append_to_arena(Piece& piece, uint64_t offset, const Buffer& data);
    Buffer into_new_arena(Piece& piece, uint64_t offset, const Buffer& data);
    void cut(Piece& piece, uint64_t offset, uint64_t end);
    void update_ready(uint64_t index, const Piece& piece);

    uint64_t piece_bytes_;
    uint64_t stamp_ = 0;
    uint64_t dirty_bytes_ = 0;
    uint64_t flight_bytes_ = 0;
    std::map<uint64_t, Piece> pieces_;
    // Pieces with dirty bytes and no run in flight; and those of them that are full.
    std::set<uint64_t> ready_;
    std::set<uint64_t> full_;
};

}  // namespace kdfs::client
