#pragma once

#include "kdfs/base/types.h"
#include "kdfs/proto/chunk.pb.h"
#include "mds/fsck.h"

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace kdfs::tools {

// What one serving member of a chain has, one page after the other in key order.
struct MemberPage {
    uint64_t target = 0;
    std::vector<pb::ChunkEntry> entries;
    size_t next = 0;
    bool more = true;
};

// One chunk as the serving members of its chain have it.
struct ChunkSight {
    uint64_t chain = 0;
    ChunkId chunk;
    // Targets in the order of `entries`; one without the chunk has version 0.
    std::vector<uint64_t> targets;
    std::vector<pb::ChunkEntry> entries;

    bool any_pending() const;
    bool equal() const;
};

// The next chunk in key order over all members, taken off their pages. Every page that is not at
// its end must have an entry left. False if all are at their end.
bool next_chunk(uint64_t chain, std::vector<MemberPage>& pages, ChunkSight& sight);

// Which chunks may exist. Data ids above the highest known one belong to files made after the scan.
class ChunkOwners {
public:
    explicit ChunkOwners(const std::vector<mds::OwnedData>& owned);
    bool owned(DataId data) const;

private:
    std::vector<uint64_t> ids_;
};

// Problems for people, at most kShownMax of them kept, all of them counted.
class ProblemList {
public:
    static constexpr size_t kShownMax = 1000;
    void add(std::string text);
    uint64_t count() const { return count_; }
    const std::vector<std::string>& shown() const { return shown_; }

private:
    uint64_t count_ = 0;
    std::vector<std::string> shown_;
};

std::string describe_difference(const ChunkSight& sight);

}  // namespace kdfs::tools
