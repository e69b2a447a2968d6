#include "client/overlay.h"
#include "client/write_buffer.h"
#include "kdfs/base/random.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace kdfs::client {
namespace {

constexpr uint64_t kPiece = 64 * KiB;

Buffer bytes_of(Random& random, uint64_t size) {
    Buffer b = Buffer::allocate(size);
    for (std::byte& byte : b.mutable_span()) {
        byte = static_cast<std::byte>(random.u64());
    }
    return b;
}

std::string text_of(const BufferChain& chain) { return std::string(chain.flatten().view()); }

TEST(WriteBufferTest, FullPieceGoesOutAsTheCallersMemory) {
    WriteBuffer buffer(kPiece);
    Random random(1);
    Buffer data = bytes_of(random, kPiece);

    buffer.write(kPiece, data);
    auto run = buffer.take(WriteBuffer::Take::kFullPieces);

    ASSERT_TRUE(run.has_value());
    EXPECT_EQ(run->piece, 1U);
    ASSERT_EQ(run->data.pieces().size(), 1U);
    EXPECT_EQ(run->data.pieces()[0].data(), data.data());
}

TEST(WriteBufferTest, PieceInFlightIsNotTakenAgainBeforeItIsDone) {
    WriteBuffer buffer(kPiece);
    buffer.write(0, Buffer::zeros(100));
    ASSERT_TRUE(buffer.take(WriteBuffer::Take::kEverything));
    buffer.write(0, Buffer::zeros(50));

    EXPECT_FALSE(buffer.take(WriteBuffer::Take::kEverything));
    buffer.done(0);

    auto run = buffer.take(WriteBuffer::Take::kEverything);
    ASSERT_TRUE(run);
    EXPECT_EQ(run->data.size(), 50U);
    buffer.done(0);
    EXPECT_TRUE(buffer.empty());
    EXPECT_EQ(buffer.bytes(), 0U);
}

TEST(WriteBufferTest, SmallWritesThatFollowEachOtherBecomeOneBufferOrFew) {
    WriteBuffer buffer(kPiece);
    for (uint64_t at = 0; at < 32 * KiB; at += 100) {
        buffer.write(at, Buffer::zeros(100));
    }

    auto run = buffer.take(WriteBuffer::Take::kEverything);

    ASSERT_TRUE(run);
    EXPECT_LE(run->data.pieces().size(), 12U);
}

TEST(WriteBufferTest, CleanUpToIgnoresLaterWrites) {
    WriteBuffer buffer(kPiece);
    buffer.write(0, Buffer::zeros(10));
    uint64_t stamp = buffer.stamp();
    ASSERT_TRUE(buffer.take(WriteBuffer::Take::kEverything));
    buffer.write(0, Buffer::zeros(10));

    EXPECT_FALSE(buffer.clean_up_to(0, stamp));
    buffer.done(0);

    EXPECT_TRUE(buffer.clean_up_to(0, stamp));
    EXPECT_FALSE(buffer.clean_up_to(0, buffer.stamp()));
}

// A file of three pieces in memory, the chunks under it, and a buffer between them.
class Model {
public:
    explicit Model(uint64_t seed) : random_(seed), buffer_(kPiece) {
        file_.assign(3 * kPiece, 'z');
        chunks_ = file_;
    }
    void step() {
        switch (random_.below(6)) {
            case 0:
            case 1:
            case 2:
                return write();
            case 3:
                return take();
            case 4:
                return finish();
            default:
                return check();
        }
    }
    void settle() {
        while (!flights_.empty() || buffer_.dirty_bytes() != 0) {
            take();
            finish();
        }
        EXPECT_TRUE(buffer_.empty());
        EXPECT_EQ(buffer_.bytes(), 0U);
        EXPECT_EQ(chunks_, file_);
    }

private:
    void write() {
        bool large = random_.chance(200000);
        uint64_t most = large ? 2 * kPiece : 5000;
        uint64_t offset = random_.below(file_.size() - 1);
        if (random_.chance(500000)) {
            offset = last_end_ % (file_.size() - 1);
        }
        uint64_t size = random_.range(1, std::min<uint64_t>(most, file_.size() - offset));
        Buffer data = bytes_of(random_, size);
        buffer_.write(offset, data);
        std::memcpy(file_.data() + offset, data.data(), size);
        last_end_ = offset + size;
    }
    void take() {
        auto what = random_.chance(500000) ? WriteBuffer::Take::kEverything
                                           : WriteBuffer::Take::kFullPieces;
        if (auto run = buffer_.take(what)) {
            flights_.push_back(std::move(*run));
        }
    }
    void finish() {
        if (flights_.empty()) {
            return;
        }
        size_t i = random_.below(flights_.size());
        std::string data = text_of(flights_[i].data);
        std::memcpy(chunks_.data() + flights_[i].piece * kPiece + flights_[i].offset,
                    data.data(),
                    data.size());
        buffer_.done(flights_[i].piece);
        flights_.erase(flights_.begin() + static_cast<std::ptrdiff_t>(i));
    }
    void check() {
        uint64_t offset = random_.below(file_.size());
        uint64_t size = random_.range(1, file_.size() - offset);
        std::vector<WriteBuffer::Overlay> over;
        buffer_.overlay(offset, size, over);
        BufferChain base(Buffer::copy_of(std::string_view(chunks_).substr(offset, size)));
        EXPECT_EQ(text_of(lay_over(base, offset, over)), file_.substr(offset, size));
        if (buffer_.covers(offset, size)) {
            BufferChain nothing(Buffer::zeros(size));
            EXPECT_EQ(text_of(lay_over(nothing, offset, over)), file_.substr(offset, size));
        }
    }

    Random random_;
    WriteBuffer buffer_;
    std::string file_;
    std::string chunks_;
    std::vector<WriteBuffer::Run> flights_;
    uint64_t last_end_ = 0;
};

TEST(WriteBufferTest, AnyOrderOfWritesAndFlushesReadsAndEndsAsTheFileIs) {
    for (uint64_t seed = 1; seed <= 30; ++seed) {
        SCOPED_TRACE(seed);
        Model model(seed);
        for (int i = 0; i < 300; ++i) {
            model.step();
        }
        model.settle();
    }
}

TEST(WriteBufferTest, TruncationForgetsDirtyBytesBehindTheEnd) {
    WriteBuffer buffer(kPiece);
    buffer.write(0, Buffer::zeros(3 * kPiece));

    buffer.truncate(kPiece + 7);

    EXPECT_EQ(buffer.dirty_bytes(), kPiece + 7);
    buffer.truncate(0);
    EXPECT_TRUE(buffer.empty());
}

}  // namespace
}  // namespace kdfs::client
