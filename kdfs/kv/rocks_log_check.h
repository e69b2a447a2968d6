#pragma once

#include "kdfs/base/result.h"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace kdfs {

// Tells files of RocksDB that were damaged later from those that a power cut left.
//
// A log, and the end of a manifest, is read up to the first record that is not whole, and what is
// behind is lost: after a power cut that is right, since nobody was told that it is durable. To
// tell the two apart, a batch carries marks: the name of such a file, and how many of its bytes
// were on stable storage when the batch was written. Records that cannot be read before that place
// show that the file was damaged since. What is behind the last mark is not covered.
//
// A mark is looked for in all bytes of a log, also behind damage, and a log holds bytes that users
// wrote. So its checksum covers the identity of the store too, a random text which users cannot
// know and which no other store has.

// As the data of a WriteBatch's PutLogData(), which is in the log and nowhere else. `file` is the
// name of a log or manifest in the store's directory.
std::string durable_mark(std::string_view identity, std::string_view file, uint64_t bytes);

// Of each file that is named, the most that a mark in `bytes` says of it, added to `marks`. Pure.
void find_marks(std::string_view identity,
                std::string_view bytes,
                std::map<std::string, uint64_t>& marks);

// How far the records of a log or manifest can be read. Pure.
class RecordScan {
public:
    // What is in the file from the start on, in parts of kPartBytes; the last may be shorter.
    static constexpr size_t kPartBytes = 32768;
    void add_part(std::string_view part);

    // Where the last record ends before which all are whole.
    uint64_t readable() const { return readable_; }

private:
    bool fits(uint8_t type);

    uint64_t before_ = 0;  // bytes of earlier parts
    uint64_t readable_ = 0;
    bool whole_ = true;    // so far
    bool inside_ = false;  // of a batch that has more records
};

// kCorrupt, naming `directory` and the file, if a log or manifest lacks what was on stable storage.
// Blocks. Changes nothing. A directory that is not there is fine.
Status check_logs(const std::string& directory);

}  // namespace kdfs
