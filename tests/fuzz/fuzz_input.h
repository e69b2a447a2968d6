#pragma once

#include "kdfs/base/codec.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

// What a fuzz target is: libFuzzer calls it with any bytes, tests/fuzz/replay_main.cc with those of
// the corpus. It fails by ending the process.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace kdfs::fuzz {

inline std::string_view view_of(const uint8_t* data, size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

// Cuts an input into numbers and parts, whatever it is: what is missing is 0 or empty. A part is a
// u16 length and that many bytes, or as many as there are.
class Input {
public:
    explicit Input(std::string_view bytes) : bytes_(bytes) {}

    bool empty() const { return bytes_.empty(); }
    uint8_t u8() { return number<uint8_t>(); }
    uint16_t u16() { return number<uint16_t>(); }
    uint64_t u64() { return number<uint64_t>(); }
    std::string_view part() {
        size_t size = u16();
        return take(size < bytes_.size() ? size : bytes_.size());
    }
    std::string_view rest() { return take(bytes_.size()); }

private:
    std::string_view take(size_t size) {
        std::string_view out = bytes_.substr(0, size);
        bytes_.remove_prefix(size);
        return out;
    }
    template <class T>
    T number() {
        if (bytes_.size() < sizeof(T)) {
            bytes_ = {};
            return 0;
        }
        T value = 0;
        std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
        return value;
    }

    std::string_view bytes_;
};

// The other way round, for seeds.
inline void put_part(std::string& out, std::string_view bytes) {
    Writer writer(out);
    writer.u16(static_cast<uint16_t>(bytes.size()));
    writer.raw(bytes.data(), bytes.size());
}

// Ends the process unless `holds`: what a target promises for any input.
inline void require(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "fuzz target: %s\n", what);
        std::abort();
    }
}

}  // namespace kdfs::fuzz
