#include "kdfs/proto/text.h"

#include <cstdint>

namespace kdfs {
namespace {

// The length of the valid sequence that `text` begins with; 0 if it begins with none.
size_t sequence_length(std::string_view text) {
    auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
    uint8_t first = byte(0);
    if (first < 0x80) {
        return 1;
    }
    size_t length = first >= 0xf0 ? 4 : (first >= 0xe0 ? 3 : 2);
    if (first < 0xc2 || first > 0xf4 || text.size() < length) {
        return 0;
    }
    // Overlong forms, surrogates, and what lies beyond the last code point show in the second.
    uint8_t low = first == 0xe0 ? 0xa0 : (first == 0xf0 ? 0x90 : 0x80);
    uint8_t high = first == 0xed ? 0x9f : (first == 0xf4 ? 0x8f : 0xbf);
    if (byte(1) < low || byte(1) > high) {
        return 0;
    }
    for (size_t i = 2; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

}  // namespace

std::string wire_text(std::string_view text, size_t bytes_max) {
    text = text.substr(0, bytes_max);
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
        size_t length = sequence_length(text);
        if (length == 0) {
            out += '?';
            text.remove_prefix(1);
        } else {
            out += text.substr(0, length);
            text.remove_prefix(length);
        }
    }
    return out;
}

}  // namespace kdfs
