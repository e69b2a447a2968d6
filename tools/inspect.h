#pragma once

#include "kdfs/base/result.h"

#include <string>
#include <string_view>

namespace kdfs::tools {

// Stored records and frames as text for people. Each takes any bytes; kCorrupt or kMalformed says
// what is wrong with them.

// A record of the metadata server.
Result<std::string> meta_record_text(std::string_view key, std::string_view value);
// A record of a target's chunk store.
Result<std::string> chunk_record_text(std::string_view key, std::string_view value);
// The first frame of `bytes`: header, body, and how much payload follows. `used` is set to its
// length, also behind an error if the length is known, else 0.
Result<std::string> frame_text(std::string_view bytes, size_t& used);

// "00 ff" or "00ff", white space ignored. kMalformed says where another character stands.
Result<std::string> parse_hex(std::string_view text);
// Bytes as "61 62 63 |abc|", at most `bytes_max` of them.
std::string bytes_text(std::string_view bytes, size_t bytes_max);

}  // namespace kdfs::tools
