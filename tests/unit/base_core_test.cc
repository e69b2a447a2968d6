#include "kdfs/base/buffer.h"
#include "kdfs/base/checksum.h"
#include "kdfs/base/checksum_kernels.h"
#include "kdfs/base/codec.h"
#include "kdfs/base/log.h"
#include "kdfs/base/random.h"
#include "kdfs/base/result.h"
#include "kdfs/base/types.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>
#include <vector>

namespace kdfs {
namespace {

Result<int> half(int n) {
    if (n % 2 != 0) {
        return Error(Errc::kInvalidArgument, "odd");
    }
    return n / 2;
}

Result<int> quarter(int n) {
    KDFS_TRY_ASSIGN(int first, half(n));
    KDFS_TRY(half(first));
    return first / 2;
}

TEST(ResultTest, TryLeavesWithTheError) {
    EXPECT_EQ(*quarter(8), 2);
    EXPECT_EQ(quarter(7).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(quarter(6).error().detail, "odd");
    EXPECT_DEATH((void)quarter(7).value(), "check failed");
}

TEST(ResultTest, EveryCodeHasAnErrnoAClassAndAName) {
    std::set<std::string_view> names;
    for (uint32_t i = 1; i < static_cast<uint32_t>(Errc::kErrcEnd); ++i) {
        Errc code = errc_from_wire(i);
        EXPECT_EQ(static_cast<uint32_t>(code), i);
        EXPECT_NE(to_errno(code), 0) << i;
        EXPECT_FALSE(errc_name(code).empty()) << i;
        names.insert(errc_name(code));
        (void)error_class(code);
    }
    EXPECT_EQ(names.size(), static_cast<size_t>(Errc::kErrcEnd) - 1);
    EXPECT_EQ(errc_from_wire(0), Errc::kMalformed);
    EXPECT_EQ(errc_from_wire(static_cast<uint32_t>(Errc::kErrcEnd)), Errc::kMalformed);
    EXPECT_EQ(errc_from_wire(UINT32_MAX), Errc::kMalformed);
}

TEST(ResultTest, CommonErrnosSurviveTheWayThroughACode) {
    for (int error_number : {ENOENT,
                             EEXIST,
                             ENOTDIR,
                             EISDIR,
                             ENOTEMPTY,
                             EACCES,
                             EPERM,
                             EINVAL,
                             ENAMETOOLONG,
                             EXDEV,
                             ENOSPC,
                             EIO,
                             ELOOP,
                             ERANGE,
                             EFBIG}) {
        EXPECT_EQ(to_errno(errc_from_errno(error_number)), error_number) << error_number;
    }
}

TEST(CodecTest, ReadsWhatWasWritten) {
    std::string bytes;
    Writer w(bytes);
    w.u8(1);
    w.u16(0x0203);
    w.u32(0x04050607);
    w.u64(0x08090a0b0c0d0e0f);
    w.be64(0x1112131415161718);
    w.bytes("name");

    Reader r(bytes);
    EXPECT_EQ(r.u8(), 1);
    EXPECT_EQ(r.u16(), 0x0203);
    EXPECT_EQ(r.u32(), 0x04050607U);
    EXPECT_EQ(r.u64(), 0x08090a0b0c0d0e0fU);
    EXPECT_EQ(r.be64(), 0x1112131415161718U);
    EXPECT_EQ(r.bytes(), "name");
    EXPECT_TRUE(r.done());
    EXPECT_EQ(bytes.substr(0, 7), std::string("\x01\x03\x02\x07\x06\x05\x04"));
    EXPECT_EQ(bytes.substr(15, 2), std::string("\x11\x12"));
}

TEST(CodecTest, EveryTruncationIsNoticed) {
    std::string bytes;
    Writer w(bytes);
    w.u32(7);
    w.bytes("some text");
    w.u64(9);

    for (size_t size = 0; size < bytes.size(); ++size) {
        Reader r(std::string_view(bytes).substr(0, size));
        (void)r.u32();
        (void)r.bytes();
        (void)r.u64();
        EXPECT_FALSE(r.ok()) << size;
        EXPECT_EQ(r.u64(), 0U);
        EXPECT_TRUE(r.bytes().empty());
    }
}

TEST(CodecTest, LengthBeyondTheEndIsNoticed) {
    std::string bytes;
    Writer(bytes).u32(UINT32_MAX);
    Reader r(bytes);
    EXPECT_TRUE(r.bytes().empty());
    EXPECT_FALSE(r.ok());
}

// The same on every machine and in every later release: runs are replayed from seeds.
TEST(RandomTest, GoldenValues) {
    Random random(1);
    std::vector<uint64_t> values(4);
    for (uint64_t& value : values) {
        value = random.u64();
    }
    std::vector<uint64_t> golden{0xb3f2af6d0fc710c5,
                                 0x853b559647364cea,
                                 0x92f89756082a4514,
                                 0x642e1c7bc266a3a7};
    EXPECT_EQ(values, golden);
    EXPECT_EQ(random.below(1000), 697U);
}

TEST(RandomTest, RangesAreKeptAndReached) {
    Random random(2);
    std::set<uint64_t> seen;
    for (int i = 0; i < 1000; ++i) {
        uint64_t value = random.range(5, 8);
        EXPECT_TRUE(value >= 5 && value <= 8);
        seen.insert(value);
    }
    EXPECT_EQ(seen.size(), 4U);
    (void)random.range(0, UINT64_MAX);
    EXPECT_FALSE(random.chance(0));
    EXPECT_TRUE(random.chance(1000000));
}

TEST(RandomTest, ForksDifferByTagAndDoNotDisturbEachOther) {
    Random a(3);
    Random b(3);
    Random disk_a = a.fork("disk");
    Random disk_b = b.fork("disk");
    (void)disk_a.u64();
    EXPECT_NE(Random(3).fork("disk").u64(), Random(3).fork("net").u64());
    EXPECT_EQ(a.u64(), b.u64());
    (void)disk_b;
}

TEST(BufferTest, SlicesShareAndOutliveTheirBuffer) {
    Buffer slice;
    {
        Buffer whole = Buffer::copy_of(std::string_view("hello world"));
        slice = whole.slice(6, 5);
    }
    EXPECT_EQ(slice.view(), "world");
    EXPECT_TRUE(slice.slice(5, 0).empty());
    EXPECT_DEATH((void)slice.slice(3, 3), "check failed");
    EXPECT_DEATH((void)slice.slice(6, 0), "check failed");
}

TEST(BufferTest, LargeOnesAreAligned) {
    for (size_t size : {size_t{4096}, size_t{5000}, size_t{1} << 20}) {
        Buffer b = Buffer::allocate(size);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) % 4096, 0U);
        EXPECT_EQ(b.size(), size);
    }
    EXPECT_TRUE(Buffer::allocate(0).empty());
    EXPECT_EQ(Buffer::zeros(3).view(), std::string(3, '\0'));
}

TEST(BufferTest, ChainsSliceAcrossPieces) {
    BufferChain chain;
    chain.append(Buffer::copy_of(std::string_view("abc")));
    chain.append(Buffer());
    chain.append(Buffer::copy_of(std::string_view("defg")));
    EXPECT_EQ(chain.pieces().size(), 2U);
    EXPECT_EQ(chain.size(), 7U);
    for (size_t from = 0; from <= 7; ++from) {
        for (size_t size = 0; from + size <= 7; ++size) {
            BufferChain part = chain.slice(from, size);
            EXPECT_EQ(part.size(), size);
            EXPECT_EQ(part.flatten().view(), std::string("abcdefg").substr(from, size));
        }
    }
}

TEST(ChecksumTest, KnownValues) {
    EXPECT_EQ(checksum(std::string_view("")), 0x2d06800538d394c2U);
    EXPECT_EQ(checksum(std::string_view("a")), 0xe6c632b61e964e1fU);
    EXPECT_EQ(checksum(std::string_view("abc")), 0x78af5f94892f3950U);
}

TEST(ChecksumTest, ChosenKernelGivesTheBaselinesValue) {
    std::string text;
    for (size_t size = 0; size < 5000; size += 1 + size / 7) {
        text.resize(size, static_cast<char>('a' + size % 26));
        EXPECT_EQ(checksum(std::string_view(text)), detail::xxh3_baseline(text.data(), text.size()))
            << size;
    }
}

TEST(ChecksumTest, BlocksAreHashedEachAlone) {
    std::string text(kBlockBytes * 2 + 10, 'x');
    text[kBlockBytes] = 'y';
    std::vector<uint64_t> sums = block_checksums(std::as_bytes(std::span(text)));
    ASSERT_EQ(sums.size(), 3U);
    EXPECT_EQ(sums[0], checksum(std::string_view(text).substr(0, kBlockBytes)));
    EXPECT_EQ(sums[1], checksum(std::string_view(text).substr(kBlockBytes, kBlockBytes)));
    EXPECT_EQ(sums[2], checksum(std::string_view(text).substr(2 * kBlockBytes)));
    EXPECT_TRUE(block_checksums({}).empty());
}

class LinesSink : public LogSink {
public:
    bool enabled(LogLevel level) const override { return level >= LogLevel::kInfo; }
    void write(LogLevel level, std::string_view line) override {
        (void)level;
        lines.emplace_back(line);
    }
    std::vector<std::string> lines;
};

TEST(LogTest, QuotesWhatWouldBeAmbiguous) {
    LinesSink sink;
    LogEvent(sink, LogLevel::kWarn, "target offline")
        .with("target", TargetId(3))
        .with("count", 4)
        .with("path", "/a b")
        .with("empty", "")
        .with("quote", "say \"x\"\\")
        .with("lines", "a\nb")
        .with("equal", "a=b");
    LogEvent(sink, LogLevel::kDebug, "not wanted").with("x", 1);

    ASSERT_EQ(sink.lines.size(), 1U);
    EXPECT_EQ(sink.lines[0],
              "target offline target=3 count=4 path=\"/a b\" empty=\"\" "
              "quote=\"say \\\"x\\\"\\\\\" lines=\"a b\" equal=\"a=b\"");
}

TEST(LogTest, ValueCannotBeginANewLine) {
    LinesSink sink;
    LogEvent(sink, LogLevel::kInfo, "m").with("v", "a\r\nb\x1b[2J");
    ASSERT_EQ(sink.lines.size(), 1U);
    EXPECT_EQ(sink.lines[0].find('\n'), std::string::npos);
    EXPECT_EQ(sink.lines[0].find('\r'), std::string::npos);
    EXPECT_EQ(sink.lines[0].find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace kdfs
