#include "kdfs/proto/layout.h"

#include <algorithm>
#include <bit>

namespace kdfs {

Status check_chunk_bytes(uint64_t chunk_bytes) {
    if (!std::has_single_bit(chunk_bytes) || chunk_bytes < kChunkBytesMin ||
        chunk_bytes > kChunkBytesMax) {
        return Error(Errc::kInvalidArgument,
                     "chunk size " + std::to_string(chunk_bytes) +
                         ": must be a power of two from 65536 to 67108864");
    }
    return {};
}

Status check_layout(const pb::Layout& layout) {
    KDFS_TRY(check_chunk_bytes(layout.chunk_bytes()));
    if (layout.width() < 1 || layout.width() > kWidthMax) {
        return Error(Errc::kInvalidArgument,
                     "width " + std::to_string(layout.width()) + ": must be 1 to " +
                         std::to_string(kWidthMax));
    }
    if (layout.replicas() < 1 || layout.replicas() > kReplicasMax) {
        return Error(Errc::kInvalidArgument,
                     "replicas " + std::to_string(layout.replicas()) + ": must be 1 to " +
                         std::to_string(kReplicasMax));
    }
    if (!pb::Placement_IsValid(layout.placement())) {
        return Error(Errc::kInvalidArgument,
                     "placement " + std::to_string(layout.placement()) + " is not known");
    }
    return {};
}

uint64_t piece_bytes(const pb::Layout& layout) {
    return std::min(layout.chunk_bytes(), kPieceBytesMax);
}

uint64_t piece_index(const pb::Layout& layout, uint64_t file_offset) {
    return file_offset / piece_bytes(layout);
}

ChainId chain_of_piece(const pb::Layout& layout, const pb::ChainTable& table, uint64_t index) {
    if (layout.placement() == pb::PLACEMENT_LOCAL && layout.first_chain() != 0) {
        return ChainId(layout.first_chain());
    }
    KDFS_CHECK(table.chains_size() > 0 && layout.width() > 0);
    uint64_t pieces_per_chunk = layout.chunk_bytes() / piece_bytes(layout);
    uint64_t stripe = index / pieces_per_chunk % layout.width();
    auto count = static_cast<uint64_t>(table.chains_size());
    return ChainId(table.chains(static_cast<int>((layout.seed() % count + stripe) % count)));
}

std::vector<PieceRange> split_range(const pb::Layout& layout,
                                    const pb::ChainTable& table,
                                    DataId data,
                                    uint64_t offset,
                                    uint64_t length) {
    std::vector<PieceRange> out;
    uint64_t bytes = piece_bytes(layout);
    while (length > 0) {
        uint64_t index = offset / bytes;
        uint64_t within = offset % bytes;
        uint64_t take = std::min(length, bytes - within);
        out.push_back({{data, index}, chain_of_piece(layout, table, index), within, take, offset});
        offset += take;
        length -= take;
    }
    return out;
}

std::vector<ChainId> chains_of_file(const pb::Layout& layout,
                                    const pb::ChainTable& table,
                                    uint64_t size) {
    std::vector<ChainId> out;
    uint64_t pieces_per_chunk = layout.chunk_bytes() / piece_bytes(layout);
    uint64_t chunks = size / layout.chunk_bytes() + (size % layout.chunk_bytes() != 0 ? 1 : 0);
    for (uint64_t chunk = 0; chunk < std::min<uint64_t>(chunks, layout.width()); ++chunk) {
        out.push_back(chain_of_piece(layout, table, chunk * pieces_per_chunk));
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

}  // namespace kdfs
