#pragma once

#include <cstdint>

namespace kdfs {

// The type in a frame's header; a response carries its request's. Never renumber.
enum class MessageType : uint16_t {
    // Manager (cluster.proto).
    kHeartbeat = 1,
    kSyncDone = 2,
    kGetMap = 3,
    kMapUpdate = 4,
    kStatus = 5,
    kScrub = 6,
    // Metadata server (meta.proto).
    kOpenSession = 20,
    kRenew = 21,
    kCloseSession = 22,
    kMeta = 23,
    kRecall = 24,
    kScanMeta = 25,
    kEndSession = 26,
    // Storage daemon (chunk.proto).
    kWrite = 40,
    kRead = 41,
    kSync = 42,
    kRemoveData = 43,
    kListChunks = 44,
    kCloneData = 45,
};

}  // namespace kdfs
