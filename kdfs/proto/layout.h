#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/proto/cluster.pb.h"

#include <cstdint>
#include <vector>

namespace kdfs {

// From file ranges to stored pieces: pure arithmetic, and part of the stored format. A file is cut
// into chunks of layout.chunk_bytes; chunk k lives on stripe k mod width; stripe s is entry (seed +
// s) mod n of the layout's chain table of n chains (PLACEMENT_LOCAL: every stripe is
// layout.first_chain). A chunk above kPieceBytesMax is stored as several pieces on its chain.
// ChunkId::index counts pieces.

// The part of a file range that lies in one piece.
struct PieceRange {
    ChunkId chunk;
    ChainId chain;
    uint64_t piece_offset = 0;
    uint64_t length = 0;
    uint64_t file_offset = 0;
};

// Checks a layout from the network or the disk: power-of-two chunk size within bounds, width,
// replicas.
Status check_layout(const pb::Layout& layout);
Status check_chunk_bytes(uint64_t chunk_bytes);

uint64_t piece_bytes(const pb::Layout& layout);
uint64_t piece_index(const pb::Layout& layout, uint64_t file_offset);
// The chain of a piece. `table` is the layout's chain table and not empty.
ChainId chain_of_piece(const pb::Layout& layout, const pb::ChainTable& table, uint64_t index);
// The pieces of [offset, offset + length) in file order.
std::vector<PieceRange> split_range(const pb::Layout& layout,
                                    const pb::ChainTable& table,
                                    DataId data,
                                    uint64_t offset,
                                    uint64_t length);
// Each chain that can hold pieces of a file of `size` bytes, once.
std::vector<ChainId> chains_of_file(const pb::Layout& layout,
                                    const pb::ChainTable& table,
                                    uint64_t size);

}  // namespace kdfs
