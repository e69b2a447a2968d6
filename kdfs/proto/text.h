#pragma once

#include <string>
#include <string_view>

namespace kdfs {

// `text`, at most `bytes_max` of it, with '?' for each byte that is no part of valid UTF-8. Fields
// of type `string` of a message must be UTF-8, or their receiver refuses the whole message; names
// of files and paths need not be.
std::string wire_text(std::string_view text, size_t bytes_max);

}  // namespace kdfs
