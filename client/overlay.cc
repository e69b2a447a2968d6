#include "client/overlay.h"

#include "kdfs/base/check.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

namespace kdfs::client {
namespace {

using Extents = std::map<uint64_t, Buffer>;

// Takes [from, to) out of the extents.
void cut(Extents& extents, uint64_t from, uint64_t to) {
    auto it = extents.upper_bound(from);
    if (it != extents.begin()) {
        --it;
    }
    while (it != extents.end() && it->first < to) {
        uint64_t start = it->first;
        uint64_t stop = start + it->second.size();
        if (stop <= from) {
            ++it;
            continue;
        }
        Buffer old = std::move(it->second);
        it = extents.erase(it);
        if (start < from) {
            extents.emplace(start, old.slice(0, from - start));
        }
        if (stop > to) {
            it = std::next(extents.emplace(to, old.slice(to - start, stop - to)).first);
        }
    }
}

}  // namespace

BufferChain lay_over(const BufferChain& base,
                     uint64_t offset,
                     const std::vector<WriteBuffer::Overlay>& over) {
    if (over.empty()) {
        return base;
    }
    Extents extents;
    uint64_t at = offset;
    for (const Buffer& piece : base.pieces()) {
        extents.emplace(at, piece);
        at += piece.size();
    }
    for (const WriteBuffer::Overlay& one : over) {
        KDFS_CHECK(one.offset >= offset && one.offset + one.data.size() <= at);
        cut(extents, one.offset, one.offset + one.data.size());
        extents.emplace(one.offset, one.data);
    }
    BufferChain out;
    for (auto& [start, piece] : extents) {
        out.append(std::move(piece));
    }
    return out;
}

void pad_with_zeros(BufferChain& data, uint64_t size, const Buffer& zeros) {
    while (data.size() < size) {
        data.append(zeros.slice(0, std::min<uint64_t>(zeros.size(), size - data.size())));
    }
}

}  // namespace kdfs::client
