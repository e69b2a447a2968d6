#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace kdfs {

// A reference-counted slice of bytes. Copying shares the memory; the memory is freed with its last
// slice, on whatever thread that happens. The bytes are written only by whoever made the buffer,
// before it is shared. Memory from allocate() is aligned to 4096 bytes, as direct I/O wants it.
class Buffer {
public:
    Buffer() = default;
    // `size` bytes of unspecified content.
    static Buffer allocate(size_t size);
    static Buffer copy_of(std::span<const std::byte> bytes);
    static Buffer copy_of(std::string_view text);
    static Buffer zeros(size_t size);
    // Shares memory that somebody else owns: `owner` keeps it alive.
    static Buffer wrap(std::shared_ptr<void> owner, std::byte* data, size_t size);

    size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    const std::byte* data() const { return data_; }
    // Only for the maker of the buffer, before it is shared.
    std::byte* mutable_data() { return data_; }
    std::span<const std::byte> span() const { return {data_, size_}; }
    std::span<std::byte> mutable_span() { return {data_, size_}; }
    std::string_view view() const { return {reinterpret_cast<const char*>(data_), size_}; }
    // The `size` bytes from `offset` on, sharing this memory. Both must lie within.
    Buffer slice(size_t offset, size_t size) const;

private:
    std::shared_ptr<void> owner_;
    std::byte* data_ = nullptr;
    size_t size_ = 0;
};

// Bytes in several pieces, as the payload of a frame or the data of one write.
class BufferChain {
public:
    BufferChain() = default;
    explicit BufferChain(Buffer buffer) { append(std::move(buffer)); }

    void append(Buffer buffer);
    void append(const BufferChain& other);
    size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    const std::vector<Buffer>& pieces() const { return pieces_; }
    // The bytes in one piece: the piece itself if there is only one, else a copy.
    Buffer flatten() const;
    // The `size` bytes from `offset` on, sharing memory. Both must lie within.
    BufferChain slice(size_t offset, size_t size) const;

private:
    std::vector<Buffer> pieces_;
    size_t size_ = 0;
};

}  // namespace kdfs
