#pragma once

#include "kdfs/base/result.h"
#include "kdfs/rt/frame.h"
#include "kdfs/rt/frame_seal.h"

#include <cstddef>
#include <optional>
#include <span>

namespace kdfs {

// Cuts a stream of bytes into frames. Lengths are checked against their bounds and the seal is
// checked before anything is allocated. Bodies and payloads can be received in place through
// room(). After an error the stream is of no more use.
class FrameReader {
public:
    explicit FrameReader(FrameSeal& seal) : seal_(seal) {}

    // Where the bytes to come belong, while a body or payload is under way; else empty.
    std::span<std::byte> room();
    // `count` bytes were put into room(). kMalformed if the body is not what the header says.
    Status filled(size_t count);
    // Takes bytes up to the end of the frame under way and gives their number, at least 1 if there
    // are any. kMalformed, kWrongVersion.
    Result<size_t> take(std::span<const std::byte> bytes);
    // The frame, once its last byte is there.
    bool complete() const { return stage_ == Stage::kComplete; }
    Frame take_frame();
    // Part of a frame was received.
    bool inside_frame() const { return stage_ != Stage::kHeader || header_bytes_ != 0; }

private:
    enum class Stage { kHeader, kBody, kPayload, kComplete };
    Status begin();
    Status next_stage();

    FrameSeal& seal_;
    Stage stage_ = Stage::kHeader;
    FrameBytes header_{};
    size_t header_bytes_ = 0;
    Frame frame_;
    Buffer payload_;
    // Bytes of the body or payload that are there.
    size_t filled_ = 0;
};

}  // namespace kdfs
