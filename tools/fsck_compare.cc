#include "tools/fsck.h"

#include <algorithm>
#include <compare>

namespace kdfs::tools {

namespace {

ChunkId id_of(const pb::ChunkEntry& entry) {
    return {DataId(entry.chunk().data()), entry.chunk().index()};
}

}  // namespace

bool ChunkSight::any_pending() const {
    return std::any_of(entries.begin(), entries.end(), [](const pb::ChunkEntry& entry) {
        return entry.pending();
    });
}

bool ChunkSight::equal() const {
    return std::all_of(entries.begin(), entries.end(), [this](const pb::ChunkEntry& entry) {
        const pb::ChunkEntry& first = entries.front();
        return entry.version() == first.version() && entry.length() == first.length() &&
               entry.digest() == first.digest();
    });
}

bool next_chunk(uint64_t chain, std::vector<MemberPage>& pages, ChunkSight& sight) {
    bool found = false;
    ChunkId least;
    for (const MemberPage& page : pages) {
        if (page.next == page.entries.size()) {
            continue;
        }
        ChunkId candidate = id_of(page.entries[page.next]);
        if (!found || candidate < least) {
            least = candidate;
            found = true;
        }
    }
    if (!found) {
        return false;
    }
    sight = ChunkSight();
    sight.chain = chain;
    sight.chunk = least;
    for (MemberPage& page : pages) {
        sight.targets.push_back(page.target);
        bool has = page.next != page.entries.size() && id_of(page.entries[page.next]) == least;
        sight.entries.push_back(has ? page.entries[page.next++] : pb::ChunkEntry());
    }
    return true;
}

ChunkOwners::ChunkOwners(const std::vector<mds::OwnedData>& owned) {
    ids_.reserve(owned.size());
    for (const mds::OwnedData& data : owned) {
        ids_.push_back(data.data.value);
    }
    std::sort(ids_.begin(), ids_.end());
}

bool ChunkOwners::owned(DataId data) const {
    bool newer_than_scan = ids_.empty() || data.value > ids_.back();
    return newer_than_scan || std::binary_search(ids_.begin(), ids_.end(), data.value);
}

void ProblemList::add(std::string text) {
    ++count_;
    if (shown_.size() < kShownMax) {
        shown_.push_back(std::move(text));
    }
}

std::string describe_difference(const ChunkSight& sight) {
    std::string text = "chunk " + to_string(sight.chunk) + " of chain " +
                       std::to_string(sight.chain) + " differs between its copies:";
    for (size_t i = 0; i < sight.entries.size(); ++i) {
        const pb::ChunkEntry& entry = sight.entries[i];
        text += " t" + std::to_string(sight.targets[i]);
        text += entry.version() == 0 ? " has none"
                                     : " has version " + std::to_string(entry.version()) + " of " +
                                           std::to_string(entry.length()) + " bytes";
        text += i + 1 == sight.entries.size() ? "" : ",";
    }
    return text;
}

}  // namespace kdfs::tools
