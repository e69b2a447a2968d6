#pragma once

#include "client/write_buffer.h"
#include "kdfs/base/buffer.h"

#include <cstdint>
#include <vector>

namespace kdfs::client {

// `base`, which starts at `offset` of the file, with `over` laid over it, later ones last. Nothing
// is copied. Each overlay lies within the base. Pure.
BufferChain lay_over(const BufferChain& base,
                     uint64_t offset,
                     const std::vector<WriteBuffer::Overlay>& over);

// `data` brought to `size` bytes: zeros, of which `zeros` is a supply, behind it.
void pad_with_zeros(BufferChain& data, uint64_t size, const Buffer& zeros);

}  // namespace kdfs::client
