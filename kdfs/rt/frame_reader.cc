#include "kdfs/rt/frame_reader.h"

#include "kdfs/base/check.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kdfs {

std::span<std::byte> FrameReader::room() {
    if (stage_ == Stage::kBody) {
        return frame_.body.mutable_span().subspan(filled_);
    }
    if (stage_ == Stage::kPayload) {
        return payload_.mutable_span().subspan(filled_);
    }
    return {};
}

Status FrameReader::filled(size_t count) {
    if (count == 0) {
        return {};
    }
    KDFS_CHECK(count <= room().size());
    filled_ += count;
    return room().empty() ? next_stage() : Status();
}

Result<size_t> FrameReader::take(std::span<const std::byte> bytes) {
    size_t taken = 0;
    while (taken < bytes.size() && !complete()) {
        std::span<const std::byte> rest = bytes.subspan(taken);
        if (stage_ == Stage::kHeader) {
            size_t count = std::min(rest.size(), header_.size() - header_bytes_);
            std::memcpy(header_.data() + header_bytes_, rest.data(), count);
            header_bytes_ += count;
            taken += count;
            if (header_bytes_ == header_.size()) {
                KDFS_TRY(begin());
            }
        } else {
            std::span<std::byte> to = room();
            size_t count = std::min(rest.size(), to.size());
            std::memcpy(to.data(), rest.data(), count);
            taken += count;
            KDFS_TRY(filled(count));
        }
    }
    return taken;
}

Status FrameReader::begin() {
    KDFS_TRY_ASSIGN(frame_.header, decode_header(header_));
    KDFS_TRY(seal_.check(header_));
    frame_.body = Buffer::allocate(frame_.header.body_bytes);
    filled_ = 0;
    stage_ = Stage::kBody;
    return frame_.body.empty() ? next_stage() : Status();
}

Status FrameReader::next_stage() {
    filled_ = 0;
    if (stage_ == Stage::kBody) {
        KDFS_TRY(check_body(frame_.header, frame_.body));
        payload_ = Buffer::allocate(frame_.header.payload_bytes);
        stage_ = Stage::kPayload;
        if (!payload_.empty()) {
            return {};
        }
    }
    stage_ = Stage::kComplete;
    return {};
}

Frame FrameReader::take_frame() {
    KDFS_CHECK(complete());
    frame_.payload = BufferChain(std::move(payload_));
    payload_ = Buffer();
    stage_ = Stage::kHeader;
    header_bytes_ = 0;
    return std::exchange(frame_, Frame());
}

}  // namespace kdfs
