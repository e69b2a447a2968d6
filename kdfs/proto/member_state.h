#pragma once

#include "kdfs/base/types.h"
#include "kdfs/proto/cluster.pb.h"

#include <cstdint>
#include <set>

namespace kdfs {

// The transition table of chain members. Pure; only the manager applies it. "Somebody serves" means
// another member of the chain is MEMBER_SERVING.
//
//   state         target-down                       target-up                     sync-done
//   serving       offline if somebody serves,       -                             -
//                 else last-serving
//   syncing       offline                           -                             serving
//   waiting       offline                           -                             -
//   last-serving  -                                 serving                       -
//   offline       -                                 syncing if somebody serves,   -
//                                                   else waiting
//
// Targets may go down together, in one version of the chain: if nobody serves then, all that served
// are last-serving. None of them took a write without the others, so the first to return serves.
//
// After each event: while somebody serves, waiting members are syncing and last-serving ones
// offline; while nobody does, syncing members are waiting (what they got is not known to be
// complete).
//
// Invariants of a chain that started with every member serving: exactly one of these holds:
// somebody serves, or somebody is last-serving. While a member is last-serving nobody serves and
// nobody syncs, so a stale survivor never serves while the newer copy may come back.
enum class MemberEvent : uint8_t {
    kTargetDown,
    kTargetUp,  // with a new incarnation, or back after it was taken for dead
    kSyncDone,
};

// The chain after `event` at `target`. Members are in the order serving, syncing, rest, otherwise
// as they were. The version is one higher if anything changed. A target that is no member changes
// nothing.
pb::Chain apply_event(pb::Chain chain, TargetId target, MemberEvent event);
// The same when all of `targets` go down together.
pb::Chain apply_down(pb::Chain chain, const std::set<TargetId>& targets);

// True if the invariants above hold.
bool chain_is_sound(const pb::Chain& chain);

}  // namespace kdfs
