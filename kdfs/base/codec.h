#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace kdfs {

static_assert(std::endian::native == std::endian::little,
              "kdfs stores and sends little-endian as it lies");

// Appends little-endian numbers and length-prefixed bytes. Keys that must sort use be64().
class Writer {
public:
    explicit Writer(std::string& out) : out_(out) {}

    void u8(uint8_t v) { raw(&v, sizeof v); }
    void u16(uint16_t v) { raw(&v, sizeof v); }
    void u32(uint32_t v) { raw(&v, sizeof v); }
    void u64(uint64_t v) { raw(&v, sizeof v); }
    void be64(uint64_t v) { u64(__builtin_bswap64(v)); }
    void bytes(std::string_view v) {
        u32(static_cast<uint32_t>(v.size()));
        raw(v.data(), v.size());
    }
    void raw(const void* data, size_t size) { out_.append(static_cast<const char*>(data), size); }

private:
    std::string& out_;
};

// Reads what Writer wrote. After the first read past the end every read gives zero or nothing and
// ok() stays false, so a decoder checks once at its end.
class Reader {
public:
    explicit Reader(std::string_view in) : in_(in) {}

    uint8_t u8() { return number<uint8_t>(); }
    uint16_t u16() { return number<uint16_t>(); }
    uint32_t u32() { return number<uint32_t>(); }
    uint64_t u64() { return number<uint64_t>(); }
    uint64_t be64() { return __builtin_bswap64(number<uint64_t>()); }
    std::string_view bytes() { return raw(u32()); }
    std::string_view raw(size_t size) {
        if (size > in_.size()) {
            fail();
            return {};
        }
        std::string_view out = in_.substr(0, size);
        in_.remove_prefix(size);
        return out;
    }
    std::string_view rest() { return raw(in_.size()); }
    size_t remaining() const { return in_.size(); }
    bool ok() const { return ok_; }
    // Everything was read and nothing was missing.
    bool done() const { return ok_ && in_.empty(); }

private:
    template <class T>
    T number() {
        T v = 0;
        std::string_view from = raw(sizeof v);
        if (ok_) {
            std::memcpy(&v, from.data(), sizeof v);
        }
        return v;
    }
    void fail() {
        ok_ = false;
        in_ = {};
    }

    std::string_view in_;
    bool ok_ = true;
};

}  // namespace kdfs
