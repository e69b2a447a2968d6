#include "mds/lease_table.h"

#include "kdfs/base/mutant.h"

#include <algorithm>
#include <utility>

namespace kdfs::mds {

std::vector<Conflict> LeaseTable::conflicts(SessionId session,
                                            const std::vector<Touched>& touched) const {
    std::vector<Conflict> out;
    for (const Touched& t : touched) {
        auto entry = inodes_.find(t.ino);
        if (entry == inodes_.end()) {
            continue;
        }
        for (const auto& [other, holding] : entry->second.holders) {
            if (holding.mode == pb::LEASE_NONE || other == session) {
                continue;
            }
            if (t.access == Access::kChange) {
                out.push_back({t.ino, other, pb::LEASE_NONE});
            } else if (holding.mode == pb::LEASE_EXCLUSIVE) {
                out.push_back({t.ino, other, holding.open ? pb::LEASE_NONE : pb::LEASE_READ});
            }
        }
    }
    return out;
}

bool LeaseTable::costs_read_lease(SessionId session,
                                  InodeId ino,
                                  pb::LeaseMode want,
                                  TimePoint now) const {
    std::optional<Holding> mine = holding(session, ino);
    return mine && mine->mode == pb::LEASE_READ && !mutant("take_read_lease_unasked") &&
           allowed(inodes_.at(ino), session, want, now) != pb::LEASE_EXCLUSIVE;
}

void LeaseTable::open(SessionId session, InodeId ino, bool write, uint64_t request) {
    Holding holding = this->holding(session, ino).value_or(Holding{});
    bool again = holding.open && request != 0 && request <= holding.open_request;
    if (!again) {
        holding.open_seq = next_seq_;
        holding.open_request = request;
    }
    holding.open = true;
    holding.writer = holding.writer || write;
    if (holding.writer && holding.mode == pb::LEASE_READ) {
        holding.mode = pb::LEASE_NONE;
    }
    set(session, ino, holding);
}

pb::LeaseMode LeaseTable::allowed(const Entry& entry,
                                  SessionId session,
                                  pb::LeaseMode want,
                                  TimePoint now) const {
    bool others_lease = false;
    bool others_exclusive = false;
    bool others_open = false;
    bool others_write = false;
    bool writer = false;
    for (const auto& [who, holding] : entry.holders) {
        if (mutant("lease_beside_others")) {
            break;
        }
        if (who == session) {
            writer = holding.writer;
            continue;
        }
        others_lease = others_lease || holding.mode != pb::LEASE_NONE;
        others_exclusive = others_exclusive || holding.mode == pb::LEASE_EXCLUSIVE;
        others_open = others_open || holding.open;
        others_write = others_write || holding.writer;
    }
    bool contended = entry.was_recalled && now < entry.recalled + kContendedFor;
    if (want == pb::LEASE_EXCLUSIVE && !others_lease && !others_open && !contended) {
        return pb::LEASE_EXCLUSIVE;
    }
    bool may_read = want != pb::LEASE_NONE && !others_exclusive && !others_write && !writer;
    return may_read ? pb::LEASE_READ : pb::LEASE_NONE;
}

pb::Grant LeaseTable::grant(SessionId session, InodeId ino, pb::LeaseMode want, TimePoint now) {
    Holding mine = holding(session, ino).value_or(Holding{});
    auto entry = inodes_.find(ino);
    pb::LeaseMode given =
        entry == inodes_.end() ? want : allowed(entry->second, session, want, now);
    mine.mode = std::max(mine.mode, given);
    mine.lease_seq = next_seq_++;
    pb::Grant grant;
    grant.set_mode(mine.returned ? pb::LEASE_NONE : mine.mode);
    grant.set_lease_seq(mine.lease_seq);
    set(session, ino, mine);
    return grant;
}

bool LeaseTable::release(SessionId session, const pb::ReleaseOne& item) {
    InodeId ino(item.ino());
    std::optional<Holding> found = holding(session, ino);
    if (!found) {
        return false;
    }
    Holding mine = *found;
    if (item.lease_seq() < mine.lease_seq) {
        mine.open = stays_open(session, item);
        mine.writer = mine.writer && mine.open;
        set(session, ino, mine);
        drop_if_empty(ino);
        return false;
    }
    bool was_exclusive = mine.mode == pb::LEASE_EXCLUSIVE;
    if (was_exclusive && item.keep() == pb::LEASE_READ && item.still_open()) {
        // It may write without telling anyone, so its lease stands until it goes wholly. Its word
        // on the size is one among others from now on.
        mine.returned = true;
        mine.open = true;
        mine.writer = true;
        set(session, ino, mine);
        return true;
    }
    mine.mode = std::min(mine.mode, item.keep());
    mine.returned = mine.returned && mine.mode == pb::LEASE_EXCLUSIVE;
    mine.open = item.still_open();
    bool gave_up = was_exclusive && mine.mode != pb::LEASE_EXCLUSIVE;
    mine.writer = mine.open && (mine.writer || gave_up);
    if (mine.writer && mine.mode == pb::LEASE_READ) {
        mine.mode = pb::LEASE_NONE;
    }
    set(session, ino, mine);
    drop_if_empty(ino);
    return true;
}

bool LeaseTable::restore(SessionId session, const pb::HeldLease& held) {
    InodeId ino(held.ino());
    Holding mine;
    mine.lease_seq = held.lease_seq();
    mine.open = held.open();
    // A release that speaks of an older lease was on its way before it was opened.
    mine.open_seq = held.lease_seq();
    // Whoever has a file open and may not cache it has it open for writing, as far as one can know.
    mine.writer = held.open() && held.mode() != pb::LEASE_READ;
    auto entry = inodes_.find(ino);
    bool fits = true;
    if (entry != inodes_.end() && held.mode() != pb::LEASE_NONE) {
        for (const auto& [who, holding] : entry->second.holders) {
            bool clash = held.mode() == pb::LEASE_EXCLUSIVE
                             ? holding.mode != pb::LEASE_NONE
                             : holding.mode == pb::LEASE_EXCLUSIVE || holding.writer;
            fits = fits && (who == session || !clash);
        }
    }
    mine.mode = fits ? held.mode() : pb::LEASE_NONE;
    set(session, ino, mine);
    drop_if_empty(ino);
    return fits;
}

bool LeaseTable::reaffirm(SessionId session, const pb::HeldLease& held) {
    InodeId ino(held.ino());
    Holding mine = holding(session, ino).value_or(Holding{});
    bool fits = held.mode() <= mine.mode;
    bool gave_up = mine.mode == pb::LEASE_EXCLUSIVE && held.mode() != pb::LEASE_EXCLUSIVE;
    mine.mode = std::min(mine.mode, held.mode());
    mine.returned = mine.returned && mine.mode == pb::LEASE_EXCLUSIVE;
    mine.open = held.open();
    mine.writer = mine.open && (mine.writer || gave_up);
    mine.lease_seq = held.lease_seq();
    mine.open_seq = std::max(mine.open_seq, held.lease_seq());
    if (mine.writer && mine.mode == pb::LEASE_READ) {
        mine.mode = pb::LEASE_NONE;
        fits = false;
    }
    set(session, ino, mine);
    drop_if_empty(ino);
    return fits;
}

void LeaseTable::drop(SessionId session, InodeId ino) {
    set(session, ino, Holding{});
    drop_if_empty(ino);
}

void LeaseTable::forget(InodeId ino) {
    auto entry = inodes_.find(ino);
    if (entry == inodes_.end()) {
        return;
    }
    std::vector<SessionId> holders;
    for (const auto& [session, holding] : entry->second.holders) {
        holders.push_back(session);
    }
    for (SessionId session : holders) {
        set(session, ino, Holding{});
    }
    inodes_.erase(ino);
}

std::vector<InodeId> LeaseTable::drop_session(SessionId session) {
    std::vector<InodeId> open;
    for (InodeId ino : inodes(session)) {
        if (holding(session, ino)->open) {
            open.push_back(ino);
        }
        drop(session, ino);
    }
    sessions_.erase(session);
    return open;
}

std::optional<LeaseTable::Holding> LeaseTable::holding(SessionId session, InodeId ino) const {
    auto entry = inodes_.find(ino);
    if (entry == inodes_.end()) {
        return std::nullopt;
    }
    auto found = entry->second.holders.find(session);
    if (found == entry->second.holders.end()) {
        return std::nullopt;
    }
    return found->second;
}

bool LeaseTable::is_open(InodeId ino) const { return open_by_other(SessionId(), ino); }

bool LeaseTable::open_by_other(SessionId session, InodeId ino) const {
    auto entry = inodes_.find(ino);
    if (entry == inodes_.end()) {
        return false;
    }
    const auto& holders = entry->second.holders;
    return std::any_of(holders.begin(), holders.end(), [session](const auto& h) {
        return h.first != session && h.second.open;
    });
}

bool LeaseTable::held_by_other(SessionId session, InodeId ino) const {
    auto entry = inodes_.find(ino);
    if (entry == inodes_.end()) {
        return false;
    }
    const auto& holders = entry->second.holders;
    return std::any_of(holders.begin(), holders.end(), [session](const auto& h) {
        return h.first != session && (h.second.open || h.second.mode != pb::LEASE_NONE);
    });
}

bool LeaseTable::holds_exclusive(SessionId session, InodeId ino) const {
    std::optional<Holding> mine = holding(session, ino);
    return mine && mine->mode == pb::LEASE_EXCLUSIVE && !mine->returned;
}

bool LeaseTable::written_by_other(SessionId session, InodeId ino) const {
    auto entry = inodes_.find(ino);
    if (entry == inodes_.end()) {
        return false;
    }
    const auto& holders = entry->second.holders;
    return std::any_of(holders.begin(), holders.end(), [&](const auto& holder) {
        return holder.first != session &&
               (holder.second.mode == pb::LEASE_EXCLUSIVE || holder.second.writer);
    });
}

std::vector<InodeId> LeaseTable::written(SessionId session) const {
    std::vector<InodeId> out;
    for (InodeId ino : inodes(session)) {
        if (holds_exclusive(session, ino) || holding(session, ino)->writer) {
            out.push_back(ino);
        }
    }
    return out;
}

std::vector<InodeId> LeaseTable::inodes(SessionId session) const {
    auto per = sessions_.find(session);
    if (per == sessions_.end()) {
        return {};
    }
    return {per->second.all.begin(), per->second.all.end()};
}

size_t LeaseTable::lease_count(SessionId session) const {
    auto per = sessions_.find(session);
    return per == sessions_.end() ? 0 : per->second.by_age.size();
}

size_t LeaseTable::open_count(SessionId session) const {
    auto per = sessions_.find(session);
    return per == sessions_.end() ? 0 : per->second.open;
}

size_t LeaseTable::held() const {
    size_t out = 0;
    for (const auto& [ino, entry] : inodes_) {
        out += entry.holders.size();
    }
    return out;
}

std::vector<InodeId> LeaseTable::excess(SessionId session, size_t most) const {
    std::vector<InodeId> out;
    size_t leases = lease_count(session);
    if (leases <= leases_max_) {
        return out;
    }
    size_t wanted = std::min(most, leases - leases_max_);
    std::vector<InodeId> spared;
    // Looks at four times as many as wanted, so that one call has a bound.
    size_t looks = wanted * 4;
    for (InodeId ino : sessions_.at(session).by_age) {
        if (out.size() == wanted || looks-- == 0) {
            break;
        }
        Holding mine = *holding(session, ino);
        bool spare = mine.open || mine.mode == pb::LEASE_EXCLUSIVE;
        (spare ? spared : out).push_back(ino);
    }
    for (size_t i = 0; i < spared.size() && out.size() < wanted; ++i) {
        out.push_back(spared[i]);
    }
    return out;
}

void LeaseTable::set(SessionId session, InodeId ino, const Holding& holding) {
    bool leased = holding.mode != pb::LEASE_NONE;
    bool kept = leased || holding.open;
    if (!kept && !this->holding(session, ino)) {
        return;
    }
    PerSession& per = sessions_[session];
    Entry& entry = inodes_[ino];
    auto found = entry.holders.find(session);
    bool was_open = found != entry.holders.end() && found->second.open;
    per.open = per.open + (holding.open ? 1 : 0) - (was_open ? 1 : 0);
    touch_age(per, ino, leased);
    if (kept) {
        entry.holders[session] = holding;
        per.all.insert(ino);
    } else {
        entry.holders.erase(session);
        per.all.erase(ino);
    }
}

void LeaseTable::touch_age(PerSession& per, InodeId ino, bool leased) {
    auto place = per.places.find(ino);
    if (place != per.places.end()) {
        per.by_age.erase(place->second);
        per.places.erase(place);
    }
    if (leased) {
        per.places[ino] = per.by_age.insert(per.by_age.end(), ino);
    }
}

bool LeaseTable::stays_open(SessionId session, const pb::ReleaseOne& item) const {
    std::optional<Holding> mine = holding(session, InodeId(item.ino()));
    if (!mine) {
        return false;
    }
    bool current = item.lease_seq() >= mine->lease_seq;
    bool closed = !item.still_open() && (current || item.lease_seq() >= mine->open_seq);
    return !closed && (mine->open || current);
}

bool LeaseTable::stays_leased(SessionId session, const pb::ReleaseOne& item) const {
    std::optional<Holding> mine = holding(session, InodeId(item.ino()));
    if (!mine) {
        return false;
    }
    pb::LeaseMode left = item.lease_seq() < mine->lease_seq ? mine->mode : item.keep();
    return std::min(mine->mode, left) != pb::LEASE_NONE;
}

bool LeaseTable::count_as_open(InodeId ino) {
    auto entry = inodes_.find(ino);
    if (entry == inodes_.end()) {
        return false;
    }
    std::vector<SessionId> unsaid;
    for (const auto& [session, holding] : entry->second.holders) {
        if (!holding.open && holding.mode != pb::LEASE_NONE) {
            unsaid.push_back(session);
        }
    }
    for (SessionId session : unsaid) {
        open(session, ino, false);
    }
    return is_open(ino);
}

void LeaseTable::note_recall(InodeId ino, TimePoint now) {
    Entry& entry = inodes_[ino];
    entry.was_recalled = true;
    entry.recalled = now;
    recalls_.emplace_back(now, ino);
    while (!recalls_.empty() && recalls_.front().first + kContendedFor <= now) {
        InodeId old = recalls_.front().second;
        recalls_.pop_front();
        auto found = inodes_.find(old);
        if (found != inodes_.end() && found->second.recalled + kContendedFor <= now) {
            found->second.was_recalled = false;
            drop_if_empty(old);
        }
    }
}

void LeaseTable::drop_if_empty(InodeId ino) {
    auto entry = inodes_.find(ino);
    if (entry != inodes_.end() && entry->second.holders.empty() && !entry->second.was_recalled) {
        inodes_.erase(entry);
    }
}

}  // namespace kdfs::mds
