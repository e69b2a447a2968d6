#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>

namespace kdfs {

// A number with a meaning: two ids of different tags never mix. Zero means "none" everywhere.
template <class Tag>
struct Id {
    uint64_t value = 0;

    constexpr Id() = default;
    constexpr explicit Id(uint64_t v) : value(v) {}
    constexpr explicit operator bool() const { return value != 0; }
    constexpr auto operator<=>(const Id&) const = default;
};

using InodeId = Id<struct InodeTag>;
// Names the chunks of a file. A file gets a new one when it is truncated to nothing, so that the
// old chunks can be collected later without racing with new writes.
using DataId = Id<struct DataTag>;
using NodeId = Id<struct NodeTag>;
using TargetId = Id<struct TargetTag>;
using ChainId = Id<struct ChainTag>;
using SessionId = Id<struct SessionTag>;
using Epoch = Id<struct EpochTag>;
// Raised by the manager whenever the members of a chain or their states change.
using ChainVersion = Id<struct ChainVersionTag>;
// Raised by one with each committed write to a chunk.
using ChunkVersion = Id<struct ChunkVersionTag>;

// One stored piece of a file. `index` counts from the start of the file in pieces, whose size is
// the file's chunk size or kPieceBytesMax, whichever is less (see proto/layout.h).
struct ChunkId {
    DataId data;
    uint64_t index = 0;

    constexpr auto operator<=>(const ChunkId&) const = default;
};

// "1f.3": data id in hexadecimal, index.
std::string to_string(const ChunkId& id);

using Duration = std::chrono::nanoseconds;
struct MonotonicTag {
    using duration = Duration;
    using rep = duration::rep;
    using period = duration::period;
    static constexpr bool is_steady = true;
};
// A point on a node's monotonic clock. Never compared between nodes, never stored.
using TimePoint = std::chrono::time_point<MonotonicTag, Duration>;
// Nanoseconds since 1970 on the node's wall clock: for file times only, never for ordering.
using WallTime = int64_t;

inline constexpr InodeId kRootInode{1};

inline constexpr uint64_t KiB = uint64_t{1} << 10;
inline constexpr uint64_t MiB = uint64_t{1} << 20;
inline constexpr uint64_t GiB = uint64_t{1} << 30;

// Bounds of what a user may ask for.
inline constexpr uint64_t kNameBytesMax = 255;
inline constexpr uint64_t kSymlinkBytesMax = 4095;
inline constexpr uint64_t kXattrNameBytesMax = 255;
inline constexpr uint64_t kXattrValueBytesMax = 64 * KiB;
inline constexpr uint64_t kXattrBytesPerInodeMax = 256 * KiB;
inline constexpr uint64_t kLinksMax = 65000;
inline constexpr uint64_t kFileBytesMax = uint64_t{1} << 60;
inline constexpr uint64_t kChunkBytesMin = 64 * KiB;
inline constexpr uint64_t kChunkBytesMax = 64 * MiB;
inline constexpr uint64_t kChunkBytesDefault = 1 * MiB;
inline constexpr uint32_t kReplicasMax = 4;
inline constexpr uint32_t kWidthMax = 256;
inline constexpr uint32_t kWidthDefault = 16;

// Chunks above this size are stored and sent in pieces of it, all on one chain (see layout.h), so
// that no frame, buffer or checksum table grows with the chunk size.
inline constexpr uint64_t kPieceBytesMax = 1 * MiB;
// The unit of checksums: each block of a piece carries its own XXH3-64.
inline constexpr uint64_t kBlockBytes = 4 * KiB;

// Bounds of frames: both are checked before anything is allocated.
inline constexpr uint64_t kBodyBytesMax = 2 * MiB;
inline constexpr uint64_t kPayloadBytesMax = kPieceBytesMax;

}  // namespace kdfs

template <class Tag>
struct std::hash<kdfs::Id<Tag>> {
    size_t operator()(const kdfs::Id<Tag>& id) const noexcept {
        // Only for in-memory tables: nothing stored, sent or ordered depends on it.
        return static_cast<size_t>(id.value * 0x9e3779b97f4a7c15ULL);
    }
};

template <>
struct std::hash<kdfs::ChunkId> {
    size_t operator()(const kdfs::ChunkId& id) const noexcept {
        return static_cast<size_t>((id.data.value ^ (id.index << 40)) * 0x9e3779b97f4a7c15ULL +
                                   id.index);
    }
};
