#include "client/block_sums.h"

#include "kdfs/base/checksum.h"
#include "kdfs/base/codec.h"
#include "kdfs/base/types.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace kdfs::client {

std::string block_sums(uint64_t offset, const BufferChain& data) {
    std::string out;
    out.reserve((data.size() / kBlockBytes + 2) * sizeof(uint64_t));
    Writer writer(out);
    // A block that lies in several buffers is put together here.
    std::array<std::byte, kBlockBytes> joined;
    size_t joined_bytes = 0;
    size_t left = data.size();
    size_t block = std::min<size_t>(left, kBlockBytes - offset % kBlockBytes);
    for (const Buffer& piece : data.pieces()) {
        size_t at = 0;
        while (at < piece.size()) {
            size_t take = std::min(piece.size() - at, block - joined_bytes);
            std::span<const std::byte> bytes = piece.span().subspan(at, take);
            at += take;
            if (take != block) {
                std::memcpy(joined.data() + joined_bytes, bytes.data(), take);
                joined_bytes += take;
                if (joined_bytes < block) {
                    continue;
                }
                bytes = std::span<const std::byte>(joined.data(), block);
            }
            writer.u64(checksum(bytes));
            joined_bytes = 0;
            left -= block;
            block = std::min<size_t>(left, kBlockBytes);
        }
    }
    return out;
}

Status verify_block_sums(const BufferChain& data, std::string_view sums) {
    std::string actual = block_sums(0, data);
    if (actual == sums) {
        return {};
    }
    if (actual.size() != sums.size()) {
        return Error(Errc::kGarbled,
                     "has " + std::to_string(sums.size() / sizeof(uint64_t)) + " checksums for " +
                         std::to_string(data.size()) + " bytes");
    }
    auto differ = std::mismatch(actual.begin(), actual.end(), sums.begin());
    auto block = static_cast<uint64_t>(differ.first - actual.begin()) / sizeof(uint64_t);
    return Error(Errc::kGarbled,
                 "changed on its way: checksum mismatch at byte " +
                     std::to_string(block * kBlockBytes) + " of the range");
}

}  // namespace kdfs::client
