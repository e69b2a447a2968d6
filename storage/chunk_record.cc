#include "storage/chunk_record.h"

#include "kdfs/base/checksum.h"
#include "kdfs/base/codec.h"

#include <algorithm>
#include <array>

namespace kdfs::storage {
namespace {

constexpr uint8_t kFormat = 1;
constexpr std::array<std::byte, kBlockBytes> kZeros{};

void put_key(std::string& out, KeyKind kind, const ChunkKey& key) {
    Writer writer(out);
    writer.u8(static_cast<uint8_t>(kind));
    writer.be64(key.chain.value);
    writer.be64(key.chunk.data.value);
    writer.be64(key.chunk.index);
}

Error bad_record(const char* what) {
    return {Errc::kCorrupt, std::string("chunk record: ") + what};
}

void put_runs(Writer& writer, const ChunkRecord& record) {
    std::vector<Extent> runs;
    for (BlockNumber block : record.blocks) {
        bool follows =
            !runs.empty() && (block == kHole ? runs.back().first == kHole
                                             : runs.back().first != kHole &&
                                                   runs.back().first + runs.back().count == block);
        if (follows) {
            runs.back().count += 1;
        } else {
            runs.push_back(Extent{block, 1});
        }
    }
    writer.u32(static_cast<uint32_t>(runs.size()));
    for (const Extent& run : runs) {
        writer.u64(run.first);
        writer.u32(static_cast<uint32_t>(run.count));
    }
}

Status get_runs(Reader& reader, size_t blocks, std::vector<BlockNumber>& out) {
    uint32_t runs = reader.u32();
    if (runs > blocks) {
        return bad_record("more runs than blocks");
    }
    for (uint32_t i = 0; i < runs; ++i) {
        uint64_t first = reader.u64();
        uint32_t count = reader.u32();
        if (count > blocks - out.size() || first > UINT64_MAX - count) {
            return bad_record("a run is too long");
        }
        for (uint32_t k = 0; k < count; ++k) {
            out.push_back(first == kHole ? kHole : first + k);
        }
    }
    if (!reader.ok() || out.size() != blocks) {
        return bad_record("the runs do not cover the length");
    }
    return {};
}

}  // namespace

std::string to_string(const ChunkKey& key) {
    return "chain " + std::to_string(key.chain.value) + " chunk " + to_string(key.chunk);
}

uint64_t blocks_of(uint64_t length) { return (length + kBlockBytes - 1) / kBlockBytes; }

uint64_t zeros_checksum(uint64_t size) {
    static const uint64_t full = checksum(std::span<const std::byte>(kZeros));
    return size == kBlockBytes ? full : checksum(std::span<const std::byte>(kZeros.data(), size));
}

uint64_t ChunkRecord::digest() const { return checksum(std::as_bytes(std::span(sums))); }

std::vector<Extent> ChunkRecord::extents(uint64_t blocks_per_slab) const {
    std::vector<Extent> out;
    for (BlockNumber block : blocks) {
        if (block == kHole) {
            continue;
        }
        if (!out.empty() && out.back().first + out.back().count == block &&
            block % blocks_per_slab != 0) {
            out.back().count += 1;
        } else {
            out.push_back(Extent{block, 1});
        }
    }
    return out;
}

const RecentWrite* ChunkRecord::find_recent(SessionId session) const {
    for (const RecentWrite& write : recent) {
        if (write.session == session) {
            return &write;
        }
    }
    return nullptr;
}

void ChunkRecord::remember(RecentWrite write) {
    std::erase_if(recent, [&](const RecentWrite& w) { return w.session == write.session; });
    if (recent.size() >= kRecentMax) {
        recent.erase(recent.begin());
    }
    recent.push_back(write);
}

uint64_t ChunkRecord::bytes_of_block(size_t index) const {
    return std::min(kBlockBytes, length - index * kBlockBytes);
}

std::string record_key(const ChunkKey& key) {
    std::string out;
    put_key(out, KeyKind::kRecord, key);
    return out;
}

std::string fallback_key(const ChunkKey& key, uint64_t seq) {
    std::string out;
    put_key(out, KeyKind::kFallback, key);
    Writer(out).be64(seq);
    return out;
}

Result<ChunkKey> decode_key(std::string_view key) {
    Reader reader(key);
    auto kind = static_cast<KeyKind>(reader.u8());
    ChunkKey out;
    out.chain = ChainId(reader.be64());
    out.chunk.data = DataId(reader.be64());
    out.chunk.index = reader.be64();
    if (kind == KeyKind::kFallback) {
        reader.be64();
    }
    if (!reader.done() || (kind != KeyKind::kRecord && kind != KeyKind::kFallback)) {
        return Error(Errc::kMalformed, "not the key of a chunk");
    }
    return out;
}

std::string encode_record(const ChunkRecord& record) {
    std::string out;
    out.reserve(64 + record.sums.size() * 8 + record.recent.size() * 24 + 64);
    Writer writer(out);
    writer.u8(kFormat);
    writer.u8(static_cast<uint8_t>(record.recent.size()));
    writer.u16(0);
    writer.u32(static_cast<uint32_t>(record.length));
    writer.u64(record.version.value);
    writer.u64(record.seq);
    put_runs(writer, record);
    for (const RecentWrite& write : record.recent) {
        writer.u64(write.session.value);
        writer.u64(write.write_id);
        writer.u64(write.version.value);
    }
    writer.raw(record.sums.data(), record.sums.size() * sizeof(uint64_t));
    writer.u64(checksum(std::string_view(out)));
    return out;
}

Result<ChunkRecord> decode_record(std::string_view bytes) {
    if (bytes.size() < sizeof(uint64_t)) {
        return bad_record("too short");
    }
    std::string_view covered = bytes.substr(0, bytes.size() - sizeof(uint64_t));
    if (Reader(bytes.substr(covered.size())).u64() != checksum(covered)) {
        return bad_record("its checksum is wrong");
    }
    Reader reader(covered);
    if (reader.u8() != kFormat) {
        return bad_record("unknown format");
    }
    ChunkRecord out;
    uint8_t recent = reader.u8();
    reader.u16();
    out.length = reader.u32();
    out.version = ChunkVersion(reader.u64());
    out.seq = reader.u64();
    if (!reader.ok() || out.length > kPieceBytesMax || recent > ChunkRecord::kRecentMax) {
        return bad_record("a field is out of bounds");
    }
    KDFS_TRY(get_runs(reader, blocks_of(out.length), out.blocks));
    for (uint8_t i = 0; i < recent; ++i) {
        RecentWrite write;
        write.session = SessionId(reader.u64());
        write.write_id = reader.u64();
        write.version = ChunkVersion(reader.u64());
        out.recent.push_back(write);
    }
    for (size_t i = 0; i < out.blocks.size(); ++i) {
        out.sums.push_back(reader.u64());
    }
    if (!reader.done()) {
        return bad_record("its length is wrong");
    }
    return out;
}

}  // namespace kdfs::storage
