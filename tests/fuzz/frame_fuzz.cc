// Frames from a stream, however it is cut; kdfs-inspect's view of the same bytes.
//   u8 mode: 1 mend checksums and seals, 2 seals under a key, 4 the bytes are one capture in hex
//   rest: the stream

#include "kdfs/base/checksum.h"
#include "kdfs/rt/frame_reader.h"
#include "tests/fuzz/fuzz_input.h"
#include "tools/inspect.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace kdfs::fuzz {
namespace {

constexpr uint8_t kMend = 1;
constexpr uint8_t kKeyed = 2;
constexpr uint8_t kHex = 4;

FrameSeal make_seal(uint8_t mode) {
    return (mode & kKeyed) != 0 ? FrameSeal(FrameSeal::Keys{}) : FrameSeal();
}

// Gives every frame of the stream the checksums that belong to it.
std::string mended(std::string_view stream, uint8_t mode) {
    std::string out(stream);
    FrameSeal seal = make_seal(mode);
    size_t at = 0;
    FrameBytes header;
    while (out.size() - at >= header.size()) {
        std::memcpy(header.data(), out.data() + at, header.size());
        auto decoded = decode_header(header);
        if (!decoded.ok()) {
            break;
        }
        uint64_t body = checksum(std::string_view(out).substr(
            at + header.size(),
            std::min<size_t>(decoded->body_bytes, out.size() - at - header.size())));
        constexpr size_t kBodyChecksumAt = 40;
        std::memcpy(header.data() + kBodyChecksumAt, &body, sizeof body);
        set_seal(header, checksum(sealed_part(header)));
        seal.seal(header);
        std::memcpy(out.data() + at, header.data(), header.size());
        at += std::min<size_t>(out.size() - at,
                               header.size() + decoded->body_bytes + decoded->payload_bytes);
    }
    return out;
}

struct Seen {
    size_t frames = 0;
    uint64_t bytes = 0;
    Errc error{};
    bool operator==(const Seen&) const = default;
};

Seen read_all(std::string_view stream, uint8_t mode, size_t step) {
    FrameSeal seal = make_seal(mode);
    FrameReader reader(seal);
    Seen seen;
    auto bytes = std::as_bytes(std::span(stream.data(), stream.size()));
    while (!bytes.empty()) {
        auto taken = reader.take(bytes.first(std::min(step, bytes.size())));
        if (!taken.ok()) {
            seen.error = taken.error().code;
            return seen;
        }
        require(*taken > 0, "the reader takes at least a byte");
        bytes = bytes.subspan(*taken);
        if (reader.complete()) {
            Frame frame = reader.take_frame();
            ++seen.frames;
            seen.bytes += frame.body.size() + frame.payload.size();
        }
    }
    return seen;
}

void inspect(std::string_view stream) {
    while (!stream.empty()) {
        size_t used = 0;
        auto text = tools::frame_text(stream, used);
        if (!text.ok() || used == 0 || used > stream.size()) {
            return;
        }
        stream.remove_prefix(used);
    }
}

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs::fuzz;
    Input input(view_of(data, size));
    uint8_t mode = input.u8();
    std::string stream(input.rest());
    if ((mode & kHex) != 0) {
        auto parsed = kdfs::tools::parse_hex(stream);
        stream = parsed.ok() ? *parsed : "";
    }
    if ((mode & kMend) != 0) {
        stream = mended(stream, mode);
    }
    Seen whole = read_all(stream, mode, stream.size() + 1);
    require(whole == read_all(stream, mode, 7), "frames do not depend on how the stream is cut");
    inspect(stream);
    return 0;
}
