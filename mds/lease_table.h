#pragma once

#include "kdfs/base/types.h"
#include "kdfs/proto/meta.pb.h"
#include "mds/namespace.h"

#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

namespace kdfs::mds {

// A lease that stands in the way of an operation of another session.
struct Conflict {
    InodeId ino;
    SessionId session;
    pb::LeaseMode keep = pb::LEASE_NONE;  // what may stay
    auto operator<=>(const Conflict&) const = default;
};

// Who may cache which inode, and who has it open. Pure: time comes in as an argument.
//
// Invariants, per inode: one exclusive holder and nobody else with a lease, or any number of read
// holders. No read lease beside a writer of another session: a session that has the inode open for
// writing without the exclusive lease writes straight to the chunks, so nobody else may cache it.
// A writer never holds a read lease. Whether a holder of the exclusive lease opened the file for
// writing by itself is not known here, so giving that lease back with files still open counts as
// writing.
//
// Contention: an inode whose exclusive lease was recalled less than kContendedFor ago, or that
// another session has open, gets no exclusive lease. Two writers then both work without.
//
// Bound: kLeasesMax leases per session; excess() names the least recently granted beyond it.
class LeaseTable {
public:
    static constexpr Duration kContendedFor = std::chrono::milliseconds(100);
    // Half as much again as a client keeps by default: what it gives back by itself is under way.
    static constexpr size_t kLeasesMax = 150000;

    // Lease numbers count up from `first_seq` over all inodes and sessions; a restarted server
    // starts above all that were given out before.
    explicit LeaseTable(uint64_t first_seq = 1, size_t leases_max = kLeasesMax)
        : leases_max_(leases_max), next_seq_(first_seq) {}

    struct Holding {
        pb::LeaseMode mode = pb::LEASE_NONE;
        bool open = false;
        bool writer = false;  // open for writing; implies open
        // The exclusive lease was made a read lease with files open: being taken back wholly.
        bool returned = false;
        uint64_t lease_seq = 0;
        uint64_t open_seq = 0;      // the lease_seq of the last open()
        uint64_t open_request = 0;  // its number, if it has one
    };

    // The leases of others that must go before `session` may do this.
    std::vector<Conflict> conflicts(SessionId session, const std::vector<Touched>& touched) const;

    // Whether the session has a read lease and would be left without any by open() for writing and
    // a grant() of `want`. Then its client has to be asked for it first like any other: it may use
    // the lease already for what came after this request, which may be an old one that comes again.
    bool costs_read_lease(SessionId session, InodeId ino, pb::LeaseMode want, TimePoint now) const;

    // Marks the inode open by the session; a grant() follows. If `write`, the caller has removed
    // the conflicts of a kChange first, and the session's own lease if costs_read_lease().
    // A `request` (0: not known) that comes again or late, while the inode is open, opens nothing
    // more: what closes the newest closes that.
    void open(SessionId session, InodeId ino, bool write, uint64_t request = 0);

    // Gives as much of `want` as may be given now, never less than what the session holds, and a
    // new lease_seq. Recalls nothing.
    pb::Grant grant(SessionId session, InodeId ino, pb::LeaseMode want, TimePoint now);

    // The session gave back what exceeds item.keep. Ignored if it speaks of an older lease_seq than
    // the last one given: that grant is still on its way; only a close of files opened before that
    // is taken then. True if it was taken. An exclusive lease
    // with files open does not become a read lease: it stays until it is given back wholly.
    bool release(SessionId session, const pb::ReleaseOne& item);

    // Whether the session has the inode open, or a lease of it, once release() took `item`.
    bool stays_open(SessionId session, const pb::ReleaseOne& item) const;
    bool stays_leased(SessionId session, const pb::ReleaseOne& item) const;

    // Whoever has a lease of the inode counts as having it open, until it says otherwise. Whether
    // anybody has.
    bool count_as_open(InodeId ino);

    // The exclusive lease was just taken from somebody: the inode counts as contended for a while.
    void note_recall(InodeId ino, TimePoint now);

    // What a client says it holds, after a restart of the server. False if it contradicts what
    // others hold; then it gets nothing but the open file.
    bool restore(SessionId session, const pb::HeldLease& held);

    // What a client says it holds after it connected again to a server that knows it; nothing, for
    // an inode it does not speak of. False if it believes to hold more than it does. The caller has
    // taken the sizes that the client kept under leases that it no longer claims.
    bool reaffirm(SessionId session, const pb::HeldLease& held);

    // Forgets what the session holds of this inode.
    void drop(SessionId session, InodeId ino);
    // The inode is gone for everybody.
    void forget(InodeId ino);
    // The session is gone. The inodes it had open, in order.
    std::vector<InodeId> drop_session(SessionId session);

    std::optional<Holding> holding(SessionId session, InodeId ino) const;
    bool is_open(InodeId ino) const;
    bool open_by_other(SessionId session, InodeId ino) const;
    // Another session has it open, or a lease of it.
    bool held_by_other(SessionId session, InodeId ino) const;
    bool holds_exclusive(SessionId session, InodeId ino) const;
    // Another session may be writing to the file's chunks.
    bool written_by_other(SessionId session, InodeId ino) const;
    // What it may be writing to, in inode order.
    std::vector<InodeId> written(SessionId session) const;
    std::vector<InodeId> inodes(SessionId session) const;
    size_t lease_count(SessionId session) const;
    size_t open_count(SessionId session) const;
    // Of all sessions: inodes with a lease or open.
    size_t held() const;
    // Leases beyond the session's bound, oldest first, `most` at most. Open files and exclusive
    // leases are spared as long as others suffice.
    std::vector<InodeId> excess(SessionId session, size_t most) const;

private:
    struct Entry {
        std::map<SessionId, Holding> holders;
        TimePoint recalled{};  // when an exclusive lease was last given back
        bool was_recalled = false;
    };
    struct PerSession {
        std::list<InodeId> by_age;  // with a lease, least recently granted first
        std::unordered_map<InodeId, std::list<InodeId>::iterator> places;
        std::set<InodeId> all;  // with a lease or open
        size_t open = 0;
    };

    pb::LeaseMode allowed(const Entry& entry,
                          SessionId session,
                          pb::LeaseMode want,
                          TimePoint now) const;
    void set(SessionId session, InodeId ino, const Holding& holding);
    void touch_age(PerSession& per, InodeId ino, bool leased);
    void drop_if_empty(InodeId ino);

    size_t leases_max_;
    uint64_t next_seq_;
    std::unordered_map<InodeId, Entry> inodes_;
    std::map<SessionId, PerSession> sessions_;
    // Inodes that keep an entry only because of a recent recall, oldest first.
    std::list<std::pair<TimePoint, InodeId>> recalls_;
};

}  // namespace kdfs::mds
