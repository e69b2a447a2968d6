#include "kdfs/base/buffer.h"

#include "kdfs/base/check.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace kdfs {
namespace {

constexpr size_t kAlignment = 4096;
// Below this, alignment for direct I/O is worth less than the memory it wastes.
constexpr size_t kSmall = 2048;

}  // namespace

Buffer Buffer::allocate(size_t size) {
    Buffer b;
    if (size == 0) {
        return b;
    }
    size_t rounded = size <= kSmall ? size : (size + kAlignment - 1) / kAlignment * kAlignment;
    void* memory = size <= kSmall ? std::malloc(rounded) : std::aligned_alloc(kAlignment, rounded);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    b.owner_ = std::shared_ptr<void>(memory, std::free);
    b.data_ = static_cast<std::byte*>(memory);
    b.size_ = size;
    return b;
}

Buffer Buffer::copy_of(std::span<const std::byte> bytes) {
    Buffer b = allocate(bytes.size());
    if (!bytes.empty()) {
        std::memcpy(b.data_, bytes.data(), bytes.size());
    }
    return b;
}

Buffer Buffer::copy_of(std::string_view text) {
    return copy_of(std::as_bytes(std::span(text.data(), text.size())));
}

Buffer Buffer::zeros(size_t size) {
    Buffer b = allocate(size);
    if (size != 0) {
        std::memset(b.data_, 0, size);
    }
    return b;
}

Buffer Buffer::wrap(std::shared_ptr<void> owner, std::byte* data, size_t size) {
    Buffer b;
    b.owner_ = std::move(owner);
    b.data_ = data;
    b.size_ = size;
    return b;
}

Buffer Buffer::slice(size_t offset, size_t size) const {
    KDFS_CHECK(offset <= size_ && size <= size_ - offset);
    Buffer b;
    if (size != 0) {
        b.owner_ = owner_;
        b.data_ = data_ + offset;
        b.size_ = size;
    }
    return b;
}

void BufferChain::append(Buffer buffer) {
    if (!buffer.empty()) {
        size_ += buffer.size();
        pieces_.push_back(std::move(buffer));
    }
}

void BufferChain::append(const BufferChain& other) {
    for (const Buffer& piece : other.pieces()) {
        append(piece);
    }
}

Buffer BufferChain::flatten() const {
    if (pieces_.size() == 1) {
        return pieces_.front();
    }
    Buffer out = Buffer::allocate(size_);
    size_t at = 0;
    for (const Buffer& piece : pieces_) {
        std::memcpy(out.mutable_data() + at, piece.data(), piece.size());
        at += piece.size();
    }
    return out;
}

BufferChain BufferChain::slice(size_t offset, size_t size) const {
    KDFS_CHECK(offset <= size_ && size <= size_ - offset);
    BufferChain out;
    for (const Buffer& piece : pieces_) {
        if (size == 0) {
            break;
        }
        if (offset >= piece.size()) {
            offset -= piece.size();
            continue;
        }
        size_t take = std::min(size, piece.size() - offset);
        out.append(piece.slice(offset, take));
        offset = 0;
        size -= take;
    }
    return out;
}

}  // namespace kdfs
