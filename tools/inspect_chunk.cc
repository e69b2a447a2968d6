#include "kdfs/proto/chunk.pb.h"
#include "storage/chunk_record.h"
#include "storage/redo_entry.h"
#include "tools/inspect.h"

#include <cstdio>
#include <vector>

namespace kdfs::tools {

namespace {

constexpr size_t kBytesShown = 256;

std::string hex(uint64_t value) {
    char text[24];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
}

void block_lines(const storage::ChunkRecord& record, std::string& text) {
    for (size_t i = 0; i < record.blocks.size(); ++i) {
        bool hole = record.blocks[i] == storage::kHole;
        text += "  block " + std::to_string(i) + " " +
                (hole ? std::string("hole") : "at " + std::to_string(record.blocks[i])) +
                " checksum " + hex(record.sums[i]) + "\n";
    }
}

std::string record_text(const storage::ChunkRecord& record) {
    std::string text = "  version " + std::to_string(record.version.value) + ", " +
                       std::to_string(record.length) + " bytes, change " +
                       std::to_string(record.seq) + ", digest " + hex(record.digest()) + "\n";
    for (const storage::RecentWrite& recent : record.recent) {
        text += "  recent write: session " + std::to_string(recent.session.value) + ", id " +
                std::to_string(recent.write_id) + ", version " +
                std::to_string(recent.version.value) + "\n";
    }
    block_lines(record, text);
    return text;
}

Result<std::string> redo_text(std::string_view key, std::string_view value) {
    KDFS_TRY_ASSIGN(uint64_t seq, storage::decode_redo_key(key));
    KDFS_TRY_ASSIGN(std::vector<storage::BlockWrite> writes, storage::decode_redo(value));
    std::string text = "blocks of change " + std::to_string(seq) + ", for a crash\n";
    for (const storage::BlockWrite& write : writes) {
        text += "  " + std::to_string(write.data.size()) + " bytes for " +
                std::to_string(write.extent.count) + " blocks from " +
                std::to_string(write.extent.first) + "\n";
    }
    return text;
}

Result<std::string> scrub_text(std::string_view value) {
    pb::ScrubState state;
    bool known = !value.empty() && value.front() == 1;
    if (!known || !state.ParseFromArray(value.data() + 1, static_cast<int>(value.size() - 1))) {
        return Error(Errc::kCorrupt, "the record of the scrub is damaged");
    }
    return "scrub\n  " + state.ShortDebugString() + "\n";
}

}  // namespace

Result<std::string> chunk_record_text(std::string_view key, std::string_view value) {
    if (!key.empty() && key[0] == static_cast<char>(storage::KeyKind::kMeta)) {
        return "target's own record\n  " + bytes_text(value, kBytesShown) + "\n";
    }
    if (key.size() == 1 && key[0] == static_cast<char>(storage::KeyKind::kScrub)) {
        return scrub_text(value);
    }
    if (!key.empty() && key[0] == static_cast<char>(storage::KeyKind::kRedo)) {
        return redo_text(key, value);
    }
    KDFS_TRY_ASSIGN(storage::ChunkKey chunk, storage::decode_key(key));
    KDFS_TRY_ASSIGN(storage::ChunkRecord record, storage::decode_record(value));
    bool fallback = key[0] == static_cast<char>(storage::KeyKind::kFallback);
    return to_string(chunk) + (fallback ? ", older record for a crash\n" : "\n") +
           record_text(record);
}

}  // namespace kdfs::tools
