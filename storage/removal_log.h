#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"

#include <algorithm>
#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

namespace kdfs::storage {

// The removals of a file's tail that this daemon has led as a head, so that one that comes again
// late does not take chunks that were written since. Numbers count up over all removals of the
// metadata server. In memory, which is enough: a request names a chain version, and that changes
// when the head does. Pure.
// Bound: kEntriesMax files, the oldest go first; what is not above a forgotten number is refused.
class RemovalLog {
public:
    static constexpr size_t kEntriesMax = 4096;

    struct Key {
        TargetId target;
        ChainId chain;
        DataId data;
        auto operator<=>(const Key&) const = default;
    };

    // What an earlier arrival of the same removal took, if it is over; nothing if this one is to be
    // carried out, and then finish() follows. kBusy while another removal of the file is under way,
    // kStaleVersion if a later one was.
    Result<std::optional<uint64_t>> begin(const Key& key, uint64_t number) {
        auto found = entries_.find(key);
        if (found == entries_.end()) {
            if (number <= forgotten_) {
                return overtaken(key);
            }
            make_room();
            entries_[key] = Entry{number, true, std::nullopt};
            order_.push_back(key);
            return std::optional<uint64_t>();
        }
        Entry& entry = found->second;
        if (number < entry.number) {
            return overtaken(key);
        }
        if (entry.running) {
            return Error(Errc::kBusy, "chunks of " + text(key) + " are being removed already");
        }
        if (number == entry.number && entry.removed) {
            return entry.removed;
        }
        entry = Entry{number, true, std::nullopt};
        return std::optional<uint64_t>();
    }
    // Without `removed` it failed, and may be begun again.
    void finish(const Key& key, std::optional<uint64_t> removed) {
        Entry& entry = entries_.at(key);
        entry.running = false;
        entry.removed = removed;
    }
    size_t size() const { return entries_.size(); }

private:
    struct Entry {
        uint64_t number = 0;
        bool running = false;
        std::optional<uint64_t> removed;
    };
    static std::string text(const Key& key) {
        return "file data " + std::to_string(key.data.value) + " on chain " +
               std::to_string(key.chain.value);
    }
    static Error overtaken(const Key& key) {
        return Error(Errc::kStaleVersion, "a later removal of " + text(key) + " was carried out");
    }
    // Entries of removals under way stay.
    void make_room() {
        for (size_t looks = order_.size(); entries_.size() >= kEntriesMax && looks > 0; --looks) {
            Key oldest = order_.front();
            order_.pop_front();
            const Entry& entry = entries_.at(oldest);
            if (entry.running) {
                order_.push_back(oldest);
                continue;
            }
            forgotten_ = std::max(forgotten_, entry.number);
            entries_.erase(oldest);
        }
    }

    std::map<Key, Entry> entries_;
    std::deque<Key> order_;   // oldest first, each once
    uint64_t forgotten_ = 0;  // the highest number of an entry that went
};

}  // namespace kdfs::storage
