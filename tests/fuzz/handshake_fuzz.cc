// What the ends of a new connection say of themselves.
//   u8 which: even a hello, odd an identity; rest: its bytes

#include "kdfs/rt/cluster_key.h"
#include "kdfs/rt/tcp_handshake.h"
#include "tests/fuzz/fuzz_input.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    uint8_t which = input.u8();
    std::string_view text = input.rest();
    if (which % 2 == 1) {
        auto identity = decode_identity(text);
        if (identity.ok()) {
            auto again = decode_identity(encode_identity(identity->cluster_id, identity->peer));
            fuzz::require(again.ok() && again->peer.name == identity->peer.name,
                          "an identity that was accepted can be said again");
        }
        return 0;
    }
    auto hello = decode_hello(text, FrameHeader::kVersion);
    if (hello.ok() && hello->detail.size() <= Hello::kBytesMax / 2) {
        fuzz::require(encode_hello(*hello) == text, "a hello has one form");
    }
    return 0;
}
