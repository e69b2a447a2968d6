#include "kdfs/base/types.h"
#include "kdfs/rt/frame.h"
#include "kdfs/rt/frame_reader.h"
#include "kdfs/rt/frame_seal.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

Frame sample() {
    Frame frame;
    frame.header.flags = FrameHeader::kFlagResponse;
    frame.header.type = 0x0102;
    frame.header.request_id = 0x1112131415161718;
    frame.header.trace_id = 0x2122232425262728;
    frame.header.job_tag = 0x3132333435363738;
    frame.header.deadline_ms = 5000;
    frame.body = Buffer::copy_of(std::string_view("abc"));
    frame.payload = BufferChain(Buffer::copy_of(std::string_view("payload")));
    return frame;
}

std::string hex(std::span<const std::byte> bytes) {
    std::string out;
    for (std::byte b : bytes) {
        constexpr std::string_view kDigits = "0123456789abcdef";
        out += kDigits[static_cast<size_t>(b) >> 4];
        out += kDigits[static_cast<size_t>(b) & 15];
    }
    return out;
}

std::string wire(Frame frame, FrameSeal& seal) {
    FrameBytes header = encode_header(frame);
    seal.seal(header);
    std::string out(reinterpret_cast<const char*>(header.data()), header.size());
    out += frame.body.view();
    out += frame.payload.flatten().view();
    return out;
}

Result<size_t> feed(FrameReader& reader, std::string_view bytes) {
    return reader.take(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

FrameSeal::Keys keys() {
    FrameSeal::Keys out;
    for (size_t i = 0; i < out.send.size(); ++i) {
        out.send[i] = static_cast<std::byte>(i);
        out.receive[i] = static_cast<std::byte>(i);
    }
    return out;
}

TEST(FrameTest, GoldenBytes) {
    Frame frame = sample();
    FrameBytes bytes = encode_header(frame);
    EXPECT_EQ(hex(std::span(bytes).first(56)),
              "4b444653"  // magic
              "01"
              "01"
              "0201"              // version, flags, type
              "1817161514131211"  // request id
              "2827262524232221"  // trace id
              "3837363534333231"  // job tag
              "03000000"
              "07000000"
              "50392f89945faf78"  // XXH3-64 of "abc"
              "88130000"
              "00000000");
    EXPECT_TRUE(check_plain_seal(bytes).ok());
}

TEST(FrameTest, EveryFlippedBitOfTheHeaderIsNoticed) {
    Frame frame = sample();
    FrameBytes good = encode_header(frame);
    for (size_t bit = 0; bit < good.size() * 8; ++bit) {
        FrameBytes bad = good;
        bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        Result<FrameHeader> decoded = decode_header(bad);
        EXPECT_FALSE(decoded.ok() && check_plain_seal(bad).ok()) << bit;
    }
}

TEST(FrameTest, LengthsBeyondTheirBoundsAreRefusedAlsoWithAGoodSeal) {
    Frame frame = sample();
    for (size_t at : {size_t{32}, size_t{36}}) {
        uint64_t bound = at == 32 ? kBodyBytesMax : kPayloadBytesMax;
        for (uint64_t length : {bound + 1, uint64_t{UINT32_MAX}}) {
            FrameBytes bytes = encode_header(frame);
            auto value = static_cast<uint32_t>(length);
            std::memcpy(bytes.data() + at, &value, sizeof value);
            EXPECT_EQ(decode_header(bytes).error().code, Errc::kMalformed);
        }
    }
}

TEST(FrameTest, AnotherVersionIsToldFromGarbage) {
    Frame frame = sample();
    FrameBytes bytes = encode_header(frame);
    bytes[4] = std::byte{FrameHeader::kVersion + 1};
    EXPECT_EQ(decode_header(bytes).error().code, Errc::kWrongVersion);
    EXPECT_NE(decode_header(bytes).error().detail.find("version 2"), std::string::npos);
    bytes[0] = std::byte{0};
    EXPECT_EQ(decode_header(bytes).error().code, Errc::kMalformed);
}

TEST(FrameReaderTest, CutsAStreamAtEveryPossiblePlace) {
    FrameSeal out_seal;
    Frame empty;
    std::string stream = wire(sample(), out_seal) + wire(empty, out_seal);
    for (size_t cut = 0; cut <= stream.size(); ++cut) {
        FrameSeal seal;
        FrameReader reader(seal);
        std::vector<Frame> frames;
        for (std::string_view part :
             {std::string_view(stream).substr(0, cut), std::string_view(stream).substr(cut)}) {
            while (!part.empty()) {
                Result<size_t> taken = feed(reader, part);
                ASSERT_TRUE(taken.ok());
                part.remove_prefix(*taken);
                if (reader.complete()) {
                    frames.push_back(reader.take_frame());
                }
            }
        }
        ASSERT_EQ(frames.size(), 2U) << cut;
        EXPECT_EQ(frames[0].body.view(), "abc");
        EXPECT_EQ(frames[0].payload.flatten().view(), "payload");
        EXPECT_EQ(frames[0].header.request_id, 0x1112131415161718U);
        EXPECT_TRUE(frames[1].body.empty());
        EXPECT_FALSE(reader.inside_frame());
    }
}

TEST(FrameReaderTest, TruncatedFrameIsNeverComplete) {
    FrameSeal out_seal;
    std::string stream = wire(sample(), out_seal);
    for (size_t size = 1; size < stream.size(); ++size) {
        FrameSeal seal;
        FrameReader reader(seal);
        ASSERT_TRUE(feed(reader, std::string_view(stream).substr(0, size)).ok());
        EXPECT_FALSE(reader.complete());
        EXPECT_TRUE(reader.inside_frame());
    }
}

TEST(FrameReaderTest, FlippedByteOfHeaderOrBodyIsAnError) {
    FrameSeal out_seal;
    std::string stream = wire(sample(), out_seal);
    for (size_t at = 0; at < FrameHeader::kBytes + 3; ++at) {
        std::string bad = stream;
        bad[at] = static_cast<char>(bad[at] ^ 0x40);
        FrameSeal seal;
        FrameReader reader(seal);
        EXPECT_FALSE(feed(reader, bad).ok()) << at;
    }
}

TEST(FrameReaderTest, RoomTakesBytesInPlace) {
    FrameSeal out_seal;
    std::string stream = wire(sample(), out_seal);
    FrameSeal seal;
    FrameReader reader(seal);
    EXPECT_TRUE(reader.room().empty());
    ASSERT_EQ(*feed(reader, std::string_view(stream).substr(0, 64)), 64U);
    ASSERT_EQ(reader.room().size(), 3U);
    std::memcpy(reader.room().data(), stream.data() + 64, 3);
    ASSERT_TRUE(reader.filled(3).ok());
    ASSERT_EQ(reader.room().size(), 7U);
    std::memcpy(reader.room().data(), stream.data() + 67, 7);
    ASSERT_TRUE(reader.filled(7).ok());
    ASSERT_TRUE(reader.complete());
    EXPECT_EQ(reader.take_frame().payload.flatten().view(), "payload");
}

// The test vector of the SipHash paper: key and message are 00 01 02 ...
TEST(FrameSealTest, SipHashKnownValue) {
    SealKey key;
    std::string message;
    for (size_t i = 0; i < key.size(); ++i) {
        key[i] = static_cast<std::byte>(i);
    }
    for (char c = 0; c < 15; ++c) {
        message += c;
    }
    EXPECT_EQ(siphash(key, std::as_bytes(std::span(message))), 0xa129ca6149be45e5U);
}

TEST(FrameSealTest, KeyedSealsRefuseReplayReorderAndOtherKeys) {
    FrameSeal sender(keys());
    Frame frame = sample();
    FrameBytes plain = encode_header(frame);
    FrameBytes first = plain;
    FrameBytes second = plain;
    sender.seal(first);
    sender.seal(second);
    EXPECT_NE(get_seal(first), get_seal(second));

    FrameSeal in_order(keys());
    EXPECT_TRUE(in_order.check(first).ok());
    EXPECT_TRUE(in_order.check(second).ok());
    FrameSeal replay(keys());
    EXPECT_TRUE(replay.check(first).ok());
    EXPECT_FALSE(replay.check(first).ok());
    FrameSeal dropped(keys());
    EXPECT_FALSE(dropped.check(second).ok());
    FrameSeal::Keys others = keys();
    others.receive[0] = std::byte{99};
    FrameSeal other(others);
    EXPECT_FALSE(other.check(first).ok());
    FrameSeal unsealed(keys());
    EXPECT_FALSE(unsealed.check(plain).ok());
}

TEST(FrameSealTest, EveryFlippedBitIsNoticed) {
    FrameSeal sender(keys());
    Frame frame = sample();
    FrameBytes good = encode_header(frame);
    sender.seal(good);
    for (size_t bit = 0; bit < good.size() * 8; ++bit) {
        FrameBytes bad = good;
        bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        FrameSeal receiver(keys());
        EXPECT_FALSE(receiver.check(bad).ok()) << bit;
    }
}

}  // namespace
}  // namespace kdfs
