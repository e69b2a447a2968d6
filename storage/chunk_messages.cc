#include "storage/chunk_messages.h"

#include "kdfs/base/checksum.h"
#include "kdfs/base/mutant.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace kdfs::storage {
namespace {

Error invalid(const char* what) { return {Errc::kInvalidArgument, std::string("write: ") + what}; }

Status check_shape(const pb::WriteRequest& request, const BufferChain& payload) {
    if (request.chain() == 0 || request.chunk().data() == 0) {
        return invalid("no chain or no chunk");
    }
    if (!pb::WriteKind_IsValid(request.kind())) {
        return invalid("an unknown kind");
    }
    if (request.offset() > kPieceBytesMax || payload.size() > kPieceBytesMax - request.offset()) {
        return invalid("it reaches beyond the largest piece");
    }
    bool data = request.kind() == pb::WRITE_DATA || request.kind() == pb::WRITE_REPLACE;
    if (!data && !payload.empty()) {
        return invalid("a truncation or removal with a payload");
    }
    if (request.kind() == pb::WRITE_DATA && payload.empty()) {
        return invalid("no payload");
    }
    if (request.kind() == pb::WRITE_REPLACE &&
        (!request.forwarded() || request.offset() != 0 || request.new_version() == 0)) {
        return invalid("only members replace chunks, and whole ones");
    }
    if (static_cast<size_t>(request.recent_size()) > ChunkRecord::kRecentMax) {
        return invalid("more recent writers than a chunk remembers");
    }
    return {};
}

}  // namespace

ChunkKey key_of(uint64_t chain, const pb::ChunkKey& chunk) {
    ChunkKey key;
    key.chain = ChainId(chain);
    key.chunk.data = DataId(chunk.data());
    key.chunk.index = chunk.index();
    return key;
}

void set_key(pb::ChunkKey& out, const ChunkId& chunk) {
    out.set_data(chunk.data.value);
    out.set_index(chunk.index);
}

std::string pack_sums(const std::vector<uint64_t>& sums) {
    return {reinterpret_cast<const char*>(sums.data()), sums.size() * sizeof(uint64_t)};
}

Result<std::vector<uint64_t>> unpack_sums(std::string_view bytes,
                                          uint64_t offset,
                                          uint64_t length) {
    uint64_t blocks = length == 0 ? 0 : blocks_of(offset % kBlockBytes + length);
    if (bytes.size() != blocks * sizeof(uint64_t)) {
        return Error(Errc::kInvalidArgument, "not one checksum per block of the payload");
    }
    std::vector<uint64_t> out(blocks);
    if (!out.empty()) {
        std::memcpy(out.data(), bytes.data(), bytes.size());
    }
    return out;
}

Status check_sums(uint64_t offset, const BufferChain& data, const std::vector<uint64_t>& sums) {
    std::array<std::byte, kBlockBytes> straddling;
    size_t index = 0;       // of the block
    uint64_t gathered = 0;  // bytes of it in `straddling`
    uint64_t left = data.size();
    uint64_t block = std::min(left, kBlockBytes - offset % kBlockBytes);
    for (const Buffer& piece : data.pieces()) {
        std::span<const std::byte> bytes = piece.span();
        while (!bytes.empty()) {
            uint64_t take = std::min<uint64_t>(bytes.size(), block - gathered);
            bool whole = gathered == 0 && take == block;
            if (!whole) {
                std::memcpy(straddling.data() + gathered, bytes.data(), take);
            }
            gathered += take;
            if (gathered == block) {
                auto content =
                    whole ? bytes.first(take) : std::span<const std::byte>(straddling).first(block);
                if (index >= sums.size() || checksum(content) != sums[index]) {
                    return Error(Errc::kGarbled,
                                 "block " + std::to_string(index) +
                                     " of the payload changed on its way; send it again");
                }
                ++index;
                left -= block;
                block = std::min(left, kBlockBytes);
                gathered = 0;
            }
            bytes = bytes.subspan(take);
        }
    }
    return {};
}

Result<ChunkWrite> check_write(const pb::WriteRequest& request, const BufferChain& payload) {
    KDFS_TRY(check_shape(request, payload));
    KDFS_TRY_ASSIGN(std::vector<uint64_t> sums,
                    unpack_sums(request.checksums(), request.offset(), payload.size()));
    if (!mutant("trust_the_network")) {
        KDFS_TRY(check_sums(request.offset(), payload, sums));
    }
    ChunkWrite write;
    write.kind = request.kind();
    write.offset = request.offset();
    write.data = payload;
    write.sums = std::move(sums);
    write.new_version = ChunkVersion(request.new_version());
    write.writer.session = SessionId(request.session());
    write.writer.write_id = request.write_id();
    write.writer.version = write.new_version;
    for (const pb::RecentWrite& recent : request.recent()) {
        RecentWrite r;
        r.session = SessionId(recent.session());
        r.write_id = recent.write_id();
        r.version = ChunkVersion(recent.version());
        write.recent.push_back(r);
    }
    return write;
}

}  // namespace kdfs::storage
