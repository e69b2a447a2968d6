// Stored records of a target, and as kdfs-inspect shows them.
//   u8 mode: 1 give the value the checksum that belongs to it; part: key; rest: value

#include "kdfs/base/checksum.h"
#include "kdfs/base/codec.h"
#include "storage/chunk_record.h"
#include "storage/redo_entry.h"
#include "tests/fuzz/fuzz_input.h"
#include "tools/inspect.h"

namespace kdfs::storage {
namespace {

void check(const ChunkRecord& record) {
    fuzz::require(record.length <= kPieceBytesMax, "the length is bounded");
    fuzz::require(record.blocks.size() == blocks_of(record.length) &&
                      record.sums.size() == record.blocks.size() &&
                      record.recent.size() <= ChunkRecord::kRecentMax,
                  "counts fit the length");
    (void)record.digest();
    (void)record.extents(64);
    for (size_t i = 0; i < record.blocks.size(); ++i) {
        uint64_t bytes = record.bytes_of_block(i);
        fuzz::require(bytes > 0 && bytes <= kBlockBytes, "each block holds bytes");
    }
    auto again = decode_record(encode_record(record));
    fuzz::require(again.ok() && again->blocks == record.blocks && again->sums == record.sums &&
                      again->recent == record.recent && again->version == record.version &&
                      again->seq == record.seq && again->length == record.length,
                  "a record survives being written again");
}

}  // namespace
}  // namespace kdfs::storage

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    bool mend = input.u8() % 2 == 1;
    std::string_view key = input.part();
    std::string value(input.rest());
    if (mend) {
        Writer(value).u64(checksum(std::string_view(value)));
    }
    auto chunk = storage::decode_key(key);
    if (chunk.ok() && key[0] == static_cast<char>(storage::KeyKind::kRecord)) {
        fuzz::require(storage::record_key(*chunk) == key, "a key has one form");
    }
    auto record = storage::decode_record(value);
    if (record.ok()) {
        storage::check(*record);
    }
    auto redo = storage::decode_redo(value);
    if (redo.ok()) {
        fuzz::require(storage::encode_redo(*redo) == value, "a redo entry has one form");
    }
    auto seq = storage::decode_redo_key(key);
    if (seq.ok()) {
        fuzz::require(storage::redo_key(*seq) == key, "the key of a redo entry has one form");
    }
    (void)tools::chunk_record_text(key, value);
    return 0;
}
