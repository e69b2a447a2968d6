#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace kdfs::client {

// Which entries of the ring have a request that waits for its answer, and which are lost. Pure.
// Bounds: as many requests as entries.
class RingEntries {
public:
    RingEntries(uint32_t queues, uint32_t depth);

    uint32_t size() const { return static_cast<uint32_t>(entries_.size()); }
    uint16_t queue_of(uint32_t entry) const { return static_cast<uint16_t>(entry / depth_); }

    // The kernel put a request into the entry. False if that cannot be: no such entry, it has one
    // already or is lost, or another entry has the same request.
    bool arrived(uint32_t entry, uint64_t unique, uint64_t commit_id);
    // The request is answered: the entry goes back to the kernel. Nothing if no entry has it.
    struct Answered {
        uint32_t entry = 0;
        uint64_t commit_id = 0;
    };
    std::optional<Answered> answer(uint64_t unique);
    // The kernel will not use the entry any more.
    void lost(uint32_t entry);

    uint32_t live() const { return live_; }
    uint32_t waiting() const { return static_cast<uint32_t>(waiting_.size()); }
    // True while the kernel can hand over a request from any CPU.
    bool complete() const;

private:
    enum class State { kWithKernel, kWithUs, kLost };
    struct Entry {
        State state = State::kWithKernel;
        uint64_t unique = 0;
        uint64_t commit_id = 0;
    };
    struct Waiting {
        uint64_t unique = 0;
        uint32_t entry = 0;
    };
    std::vector<Waiting>::const_iterator place_of(uint64_t unique) const;

    uint32_t depth_;
    uint32_t live_;
    std::vector<Entry> entries_;
    std::vector<uint32_t> live_in_queue_;
    std::vector<Waiting> waiting_;  // by unique; few, so that moving them costs little
};

}  // namespace kdfs::client
