#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/text.h"
#include "kdfs/proto/wire.h"

#include <gtest/gtest.h>

#include <string>

namespace kdfs {
namespace {

TEST(WireTextTest, KeepsUtf8AndReplacesTheRest) {
    EXPECT_EQ(wire_text("plain", 100), "plain");
    EXPECT_EQ(wire_text("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 100),
              "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    EXPECT_EQ(wire_text("a\xff\x80z", 100), "a??z");
    EXPECT_EQ(wire_text("\xc0\x80", 100), "??");            // overlong
    EXPECT_EQ(wire_text("\xed\xa0\x80", 100), "???");       // a surrogate
    EXPECT_EQ(wire_text("\xf4\x90\x80\x80", 100), "????");  // beyond the last code point
    EXPECT_EQ(wire_text("\xe2\x82", 100), "??");            // cut off
}

TEST(WireTextTest, IsNoLongerThanItMayBeAlsoWithinACharacter) {
    EXPECT_EQ(wire_text("abc", 2), "ab");
    EXPECT_EQ(wire_text("a\xc3\xa4", 2), "a?");
}

// Protocol Buffers refuse a message with a `string` that is not UTF-8: what wire_text() gives is
// taken, whatever it was made from.
TEST(WireTextTest, EveryResultCanBeReceived) {
    for (int first = 0; first < 256; ++first) {
        for (int second = 0; second < 256; second += 3) {
            std::string raw{static_cast<char>(first), static_cast<char>(second), 'x'};
            pb::ErrorBody body;
            body.set_detail(wire_text(raw, 100));
            ASSERT_TRUE(decode<pb::ErrorBody>(encode(body)).ok()) << first << " " << second;
        }
    }
}

}  // namespace
}  // namespace kdfs
