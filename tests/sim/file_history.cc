#include "tests/sim/file_history.h"

#include "kdfs/base/check.h"

#include <algorithm>
#include <cstring>

namespace kdfs::sim {
namespace {

uint64_t word(uint64_t id, uint64_t index) {
    uint64_t x = (id << 32) ^ index;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

std::string milliseconds(TimePoint time) {
    if (time == FileHistory::kNever) {
        return "never";
    }
    auto since_start = time.time_since_epoch() - std::chrono::hours(1);
    return std::to_string(
               std::chrono::duration_cast<std::chrono::milliseconds>(since_start).count()) +
           "ms";
}

}  // namespace

void FileHistory::fill(ChangeId id, uint64_t offset, std::span<std::byte> out) {
    auto part = [&](uint64_t done, uint64_t count) {
        uint64_t value = word(id, (offset + done) / 8);
        uint64_t in_word = (offset + done) % 8;
        std::memcpy(out.data() + done, reinterpret_cast<const char*>(&value) + in_word, count);
    };
    uint64_t done = std::min<uint64_t>((8 - offset % 8) % 8, out.size());
    if (done != 0) {
        part(0, done);
    }
    // Whole words: a simulation spends much of its time here.
    for (uint64_t index = (offset + done) / 8; done + 8 <= out.size(); ++index, done += 8) {
        uint64_t value = word(id, index);
        std::memcpy(out.data() + done, &value, sizeof value);
    }
    if (done != out.size()) {
        part(done, out.size() - done);
    }
}

FileHistory::ChangeId FileHistory::begin_write(uint64_t client,
                                               uint64_t offset,
                                               uint64_t length,
                                               TimePoint now) {
    Change change;
    change.id = next_id_++;
    change.client = client;
    change.offset = offset;
    change.length = length;
    change.began = now;
    changes_.push_back(change);
    return change.id;
}

FileHistory::ChangeId FileHistory::begin_truncate(uint64_t client, uint64_t size, TimePoint now) {
    bool grows = size >= size_bounds(now, now).least;
    ChangeId id = begin_write(client, size, 0, now);
    changes_.back().truncate = true;
    changes_.back().grows = grows;
    return id;
}

FileHistory::Change* FileHistory::find(ChangeId id) {
    for (auto at = changes_.rbegin(); at != changes_.rend(); ++at) {
        if (at->id == id) {
            return &*at;
        }
    }
    return nullptr;
}

void FileHistory::end(ChangeId id, TimePoint now) {
    Change* change = find(id);
    KDFS_CHECK(change != nullptr);
    if (!change->maybe) {
        change->ended = now;
    }
}

void FileHistory::cancel(ChangeId id) {
    std::erase_if(changes_, [id](const Change& change) { return change.id == id; });
}

void FileHistory::acknowledge(ChangeId id, TimePoint now) {
    Change* change = find(id);
    KDFS_CHECK(change != nullptr);
    change->acknowledged = now;
}

void FileHistory::synced(uint64_t client, TimePoint began, TimePoint ended) {
    for (Change& change : changes_) {
        if (change.client != client || change.told_lost) {
            continue;
        }
        bool acknowledged = change.acknowledged < began && !change.maybe;
        if (acknowledged) {
            change.ended = std::min(change.ended, ended);
        }
        if (acknowledged || change.ended < began) {
            change.durable = true;
            change.at_risk = false;
        }
    }
}

void FileHistory::client_lost(uint64_t client) {
    for (Change& change : changes_) {
        // A truncation is the server's from its answer on. One that makes the file larger is kept
        // back under the exclusive lease as a write is.
        bool answered = change.truncate && !change.grows && change.ended != kNever;
        if (change.client == client && !change.durable && !answered) {
            change.maybe = true;
            change.ended = kNever;
        }
    }
}

void FileHistory::all_lost() {
    for (Change& change : changes_) {
        if (!change.durable) {
            change.maybe = true;
            change.ended = kNever;
        }
    }
}

void FileHistory::chains_lost() {
    for (Change& change : changes_) {
        change.at_risk |= !change.truncate && !change.durable && !change.told_lost;
    }
}

void FileHistory::told_lost(uint64_t client) {
    for (Change& change : changes_) {
        if (change.client == client && change.at_risk) {
            change.at_risk = false;
            change.told_lost = true;
        }
    }
}

void FileHistory::settle(TimePoint now) {
    for (Change& change : changes_) {
        if (change.ended == kNever) {
            change.maybe = true;
            change.ended = now;
        }
    }
}

void FileHistory::settle_client(uint64_t client, TimePoint lost, TimePoint now) {
    for (Change& change : changes_) {
        // What began later may have been lost since, in another accident.
        bool meant = change.client == client && change.began <= lost;
        if (meant && change.maybe && change.ended == kNever) {
            change.ended = now;
        }
    }
}

std::vector<uint64_t> FileHistory::cuts(uint64_t from, uint64_t to) const {
    std::vector<uint64_t> out{from, to};
    auto add = [&](uint64_t at) {
        if (at > from && at < to) {
            out.push_back(at);
        }
    };
    for (const Change& change : changes_) {
        add(change.offset);
        add(change.offset + change.length);
    }
    for (uint64_t at = (from / kBlockBytes + 1) * kBlockBytes; at < to; at += kBlockBytes) {
        add(at);
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

bool FileHistory::dead(const Change& change, uint64_t from, uint64_t to, TimePoint began) const {
    return std::any_of(changes_.begin(), changes_.end(), [&](const Change& later) {
        return later.began > change.ended && later.surely_before(began) && later.covers(from, to);
    });
}

bool FileHistory::holds(const Change* change,
                        uint64_t from,
                        std::span<const std::byte> data) const {
    if (change == nullptr || change->truncate) {
        return std::all_of(data.begin(), data.end(), [](std::byte b) { return b == std::byte{0}; });
    }
    std::vector<std::byte> expected(data.size());
    fill(change->id, from, expected);
    return std::memcmp(expected.data(), data.data(), data.size()) == 0;
}

std::string FileHistory::describe(const Change* change) const {
    if (change == nullptr) {
        return "zeros of a new file";
    }
    std::string out = change->truncate ? "truncation " : "write ";
    out += std::to_string(change->id) + " of client " + std::to_string(change->client) + " at " +
           std::to_string(change->offset) + "+" + std::to_string(change->length) + " (" +
           milliseconds(change->began) + " to " + milliseconds(change->ended) +
           (change->durable ? ", synced" : "") + (change->maybe ? ", may be lost" : "") +
           (change->at_risk ? ", at risk" : "") + (change->told_lost ? ", told to be lost" : "") +
           ")";
    return out;
}

std::optional<std::string> FileHistory::check_segment(uint64_t from,
                                                      std::span<const std::byte> data,
                                                      TimePoint began,
                                                      TimePoint ended) const {
    uint64_t to = from + data.size();
    // A file without changes is zeros, which die with the first change that surely happened.
    bool zeros_dead = std::any_of(changes_.begin(), changes_.end(), [&](const Change& change) {
        return change.surely_before(began) && change.covers(from, to);
    });
    if (!zeros_dead && holds(nullptr, from, data)) {
        return std::nullopt;
    }
    std::string allowed = zeros_dead ? "" : "; zeros";
    std::string source;
    for (const Change& change : changes_) {
        if (!change.covers(from, to)) {
            continue;
        }
        bool visible = change.began <= ended && !dead(change, from, to, began);
        if (holds(&change, from, data)) {
            if (visible) {
                return std::nullopt;
            }
            source = describe(&change);
        }
        if (visible) {
            allowed += "; " + describe(&change);
        }
    }
    if (source.empty()) {
        source = holds(nullptr, from, data) ? "zeros" : "no write ever made to this place";
    }
    return "bytes " + std::to_string(from) + " to " + std::to_string(to) + ", read from " +
           milliseconds(began) + " to " + milliseconds(ended) + ", are of " + source + "; allowed" +
           (allowed.empty() ? ": nothing" : allowed);
}

std::optional<std::string> FileHistory::check_read(uint64_t offset,
                                                   uint64_t wanted,
                                                   std::span<const std::byte> data,
                                                   TimePoint began,
                                                   TimePoint ended) const {
    Bounds size = size_bounds(began, ended);
    uint64_t least = std::min(wanted, size.least > offset ? size.least - offset : 0);
    uint64_t most = std::min(wanted, size.most > offset ? size.most - offset : 0);
    if (data.size() < least || data.size() > most) {
        return "read of " + std::to_string(wanted) + " bytes at " + std::to_string(offset) +
               " gave " + std::to_string(data.size()) + ", but the file has " +
               std::to_string(size.least) + " to " + std::to_string(size.most) + " bytes (" +
               milliseconds(began) + " to " + milliseconds(ended) + ")";
    }
    std::vector<uint64_t> at = cuts(offset, offset + data.size());
    for (size_t i = 0; i + 1 < at.size(); ++i) {
        auto part = data.subspan(at[i] - offset, at[i + 1] - at[i]);
        if (!part.empty()) {
            if (auto wrong = check_segment(at[i], part, began, ended)) {
                return wrong;
            }
        }
    }
    return std::nullopt;
}

FileHistory::Bounds FileHistory::size_bounds(TimePoint began, TimePoint ended) const {
    Bounds size;
    for (const Change& change : changes_) {
        if (change.began > ended) {
            continue;
        }
        bool certain = change.happened_before(began);
        uint64_t end = change.offset + change.length;
        if (change.truncate && certain) {
            // A write that was not over may still come after it.
            size = {change.offset, change.offset};
            for (const Change& other : changes_) {
                if (!other.truncate && other.began < change.began && other.ended > change.began) {
                    size.most = std::max(size.most, other.offset + other.length);
                }
            }
            continue;
        }
        size.most = std::max(size.most, end);
        if (change.truncate) {
            size.least = std::min(size.least, change.offset);
        } else if (certain) {
            size.least = std::max(size.least, end);
        }
    }
    return size;
}

std::optional<std::string> FileHistory::check_size(uint64_t size,
                                                   TimePoint began,
                                                   TimePoint ended) const {
    Bounds allowed = size_bounds(began, ended);
    if (size >= allowed.least && size <= allowed.most) {
        return std::nullopt;
    }
    return "size is " + std::to_string(size) + ", allowed " + std::to_string(allowed.least) +
           " to " + std::to_string(allowed.most) + " (" + milliseconds(began) + " to " +
           milliseconds(ended) + ")";
}

void FileHistory::prune(TimePoint now) {
    std::erase_if(changes_, [&](const Change& change) {
        return std::any_of(changes_.begin(), changes_.end(), [&](const Change& later) {
            return later.durable && later.surely_before(now) && later.began > change.ended &&
                   later.covers(change.offset,
                                change.truncate ? UINT64_MAX : change.offset + change.length) &&
                   (!later.truncate || change.truncate || later.offset <= change.offset);
        });
    });
}

}  // namespace kdfs::sim
