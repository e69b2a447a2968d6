#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "storage/extent_allocator.h"

#include <compare>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kdfs::storage {

// A chunk as a target knows it. Sorts by chain first, so that a chain's chunks are one range.
struct ChunkKey {
    ChainId chain;
    ChunkId chunk;

    constexpr auto operator<=>(const ChunkKey&) const = default;
};

// "chain 7 chunk 1f.3"
std::string to_string(const ChunkKey& key);

struct RecentWrite {
    SessionId session;
    uint64_t write_id = 0;
    ChunkVersion version;

    constexpr auto operator<=>(const RecentWrite&) const = default;
};

// What a target stores of one chunk beside its bytes. Immutable once shared.
struct ChunkRecord {
    static constexpr size_t kRecentMax = 8;

    ChunkVersion version;
    uint64_t length = 0;
    // The store's sequence number of the change that made this record.
    uint64_t seq = 0;
    // One per block: where it lies (kHole: zeros), and the XXH3-64 of its bytes below `length`.
    std::vector<BlockNumber> blocks;
    std::vector<uint64_t> sums;
    // The last write of each recent session, the newest last.
    std::vector<RecentWrite> recent;

    // XXH3-64 over the block checksums: equal content has equal digests.
    uint64_t digest() const;
    // Runs of blocks on disk, without holes, cut where a slab ends.
    std::vector<Extent> extents(uint64_t blocks_per_slab) const;
    // The last write of `session`, or null.
    const RecentWrite* find_recent(SessionId session) const;
    void remember(RecentWrite write);
    uint64_t bytes_of_block(size_t index) const;
};
using RecordPtr = std::shared_ptr<const ChunkRecord>;

uint64_t blocks_of(uint64_t length);
// The checksum of `size` zero bytes, at most a block.
uint64_t zeros_checksum(uint64_t size);

// Keys in the store's KvStore. kRecord: the chunk's newest record. kFallback, with a record's seq
// behind it: an older one that a crash may bring back. kRedo: see storage/redo_entry.h. kMeta: the
// store's own entry. kScrub: how far the target is with a scrub, see storage/scrubber.h.
enum class KeyKind : char {
    kRecord = 'C',
    kFallback = 'F',
    kMeta = 'M',
    kRedo = 'R',
    kScrub = 'S'
};
std::string record_key(const ChunkKey& key);
std::string fallback_key(const ChunkKey& key, uint64_t seq);
// The chunk of either kind of key; kMalformed for anything else.
Result<ChunkKey> decode_key(std::string_view key);

// Record bytes, little-endian:
//   u8 format 1, u8 count of recent writes, u16 0, u32 length, u64 version, u64 seq,
//   u32 count of runs, runs of { u64 first block, u32 blocks } (first 0: a hole),
//   recent writes of { u64 session, u64 write id, u64 version },
//   u64 checksum per block, then u64 XXH3-64 of all before.
std::string encode_record(const ChunkRecord& record);
// kCorrupt for bytes that are no record, whatever they are.
Result<ChunkRecord> decode_record(std::string_view bytes);

}  // namespace kdfs::storage
