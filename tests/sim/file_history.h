#pragma once

#include "kdfs/base/types.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kdfs::sim {

// The oracle of one file's data and size: every change with the time it ran, and whether a read may
// have returned what it did. Times are virtual. Pure.
//
// A read may return the bytes of a change that began before the read ended, unless another change
// of the same bytes began after the first had ended and ended before the read began. Changes that
// may or may not have happened (an error, the death or the fencing of their client before an fsync)
// stay under way for ever. Truncations never run beside other changes.
class FileHistory {
public:
    using ChangeId = uint64_t;
    static constexpr TimePoint kNever = TimePoint::max();

    // What write `id` puts at `offset` and after: different for each write and place.
    static void fill(ChangeId id, uint64_t offset, std::span<std::byte> out);

    ChangeId begin_write(uint64_t client, uint64_t offset, uint64_t length, TimePoint now);
    ChangeId begin_truncate(uint64_t client, uint64_t size, TimePoint now);
    // The change was acknowledged. Without this call it may happen any time.
    void end(ChangeId id, TimePoint now);
    // The change was refused and had no effect.
    void cancel(ChangeId id);
    // The write was taken, but may come to nothing as long as it is not synced. It ends with that.
    void acknowledge(ChangeId id, TimePoint now);
    // An fsync of `client` that began at `began` was acknowledged at `ended`.
    void synced(uint64_t client, TimePoint began, TimePoint ended);
    // What `client` wrote and did not sync may be lost, or come late.
    void client_lost(uint64_t client);
    // What was not synced may be lost.
    void all_lost();
    // Chains lost what was only committed: bytes that nobody synced may be gone, until an fsync of
    // their client says that they are there. The server's sizes and truncations are not touched.
    void chains_lost();
    // An fsync of `client` said that data was lost. That is said once: no later one says that what
    // was at risk is there.
    void told_lost(uint64_t client);
    // From now on, what is under way or lost does not come late any more: it happened or did not.
    // Nothing else is under way.
    void settle(TimePoint now);
    // The same for what `client` began by `lost` and lost, while others go on.
    void settle_client(uint64_t client, TimePoint lost, TimePoint now);

    // What is wrong with a read of [offset, offset + wanted) that ran from `began` to `ended`;
    // nothing if all is well.
    std::optional<std::string> check_read(uint64_t offset,
                                          uint64_t wanted,
                                          std::span<const std::byte> data,
                                          TimePoint began,
                                          TimePoint ended) const;
    std::optional<std::string> check_size(uint64_t size, TimePoint began, TimePoint ended) const;
    // The largest size the file may have.
    uint64_t size_max(TimePoint began, TimePoint ended) const {
        return size_bounds(began, ended).most;
    }
    // Forgets changes that no read that begins at `now` or later can see.
    void prune(TimePoint now);
    size_t changes() const { return changes_.size(); }

private:
    struct Change {
        ChangeId id = 0;
        bool truncate = false;
        bool grows = false;  // a truncation that may have made the file larger
        uint64_t client = 0;
        uint64_t offset = 0;
        uint64_t length = 0;  // of a write
        TimePoint began{};
        TimePoint ended = kNever;
        // See acknowledge().
        TimePoint acknowledged = kNever;
        bool durable = false;
        // It may or may not have happened.
        bool maybe = false;
        // It happened, but its bytes may have gone since: where an fsync has not said anything yet,
        // and where one has said so.
        bool at_risk = false;
        bool told_lost = false;

        bool happened_before(TimePoint time) const { return ended < time && !maybe; }
        bool surely_before(TimePoint time) const {
            return happened_before(time) && !at_risk && !told_lost;
        }
        bool covers(uint64_t from, uint64_t to) const {
            return offset <= from && (truncate || to <= offset + length);
        }
    };
    struct Bounds {
        uint64_t least = 0;
        uint64_t most = 0;
    };
    Bounds size_bounds(TimePoint began, TimePoint ended) const;
    std::vector<uint64_t> cuts(uint64_t from, uint64_t to) const;
    bool dead(const Change& change, uint64_t from, uint64_t to, TimePoint began) const;
    bool holds(const Change* change, uint64_t from, std::span<const std::byte> data) const;
    std::optional<std::string> check_segment(uint64_t from,
                                             std::span<const std::byte> data,
                                             TimePoint began,
                                             TimePoint ended) const;
    std::string describe(const Change* change) const;
    Change* find(ChangeId id);

    ChangeId next_id_ = 1;
    std::vector<Change> changes_;
};

}  // namespace kdfs::sim
