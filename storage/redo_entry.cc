#include "storage/redo_entry.h"

#include "kdfs/base/checksum.h"
#include "kdfs/base/codec.h"
#include "storage/chunk_record.h"

#include <utility>

namespace kdfs::storage {
namespace {

Error bad_entry(const char* what) { return {Errc::kCorrupt, std::string("redo entry: ") + what}; }

}  // namespace

std::string redo_key(uint64_t seq) {
    std::string out;
    Writer writer(out);
    writer.u8(static_cast<uint8_t>(KeyKind::kRedo));
    writer.be64(seq);
    return out;
}

Result<uint64_t> decode_redo_key(std::string_view key) {
    Reader reader(key);
    auto kind = static_cast<KeyKind>(reader.u8());
    uint64_t seq = reader.be64();
    if (!reader.done() || kind != KeyKind::kRedo) {
        return Error(Errc::kMalformed, "not the key of a redo entry");
    }
    return seq;
}

std::string encode_redo(const std::vector<BlockWrite>& writes) {
    uint64_t bytes = 0;
    for (const BlockWrite& write : writes) {
        bytes += write.data.size();
    }
    std::string out;
    out.reserve(bytes + writes.size() * 16 + 12);
    Writer writer(out);
    writer.u32(static_cast<uint32_t>(writes.size()));
    for (const BlockWrite& write : writes) {
        writer.u64(write.extent.first);
        writer.u32(static_cast<uint32_t>(write.extent.count));
        writer.u32(static_cast<uint32_t>(write.data.size()));
    }
    for (const BlockWrite& write : writes) {
        for (const Buffer& piece : write.data.pieces()) {
            writer.raw(piece.data(), piece.size());
        }
    }
    writer.u64(checksum(std::string_view(out)));
    return out;
}

Result<std::vector<BlockWrite>> decode_redo(std::string_view bytes) {
    if (bytes.size() < sizeof(uint64_t)) {
        return bad_entry("too short");
    }
    std::string_view covered = bytes.substr(0, bytes.size() - sizeof(uint64_t));
    if (Reader(bytes.substr(covered.size())).u64() != checksum(covered)) {
        return bad_entry("its checksum is wrong");
    }
    Reader reader(covered);
    uint32_t runs = reader.u32();
    std::vector<BlockWrite> out;
    std::vector<uint32_t> sizes;
    for (uint32_t i = 0; i < runs && reader.ok(); ++i) {
        BlockWrite write;
        write.extent.first = reader.u64();
        write.extent.count = reader.u32();
        sizes.push_back(reader.u32());
        uint64_t most = write.extent.count * kBlockBytes;
        if (sizes.back() > most || sizes.back() + kBlockBytes <= most) {
            return bad_entry("a run has another length than its blocks");
        }
        out.push_back(std::move(write));
    }
    for (size_t i = 0; i < out.size(); ++i) {
        std::string_view data = reader.raw(sizes[i]);
        out[i].data.append(Buffer::copy_of(data));
    }
    if (!reader.done()) {
        return bad_entry("its length is wrong");
    }
    return out;
}

}  // namespace kdfs::storage
