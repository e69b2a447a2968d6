#include "kdfs/proto/member_state.h"

#include "kdfs/base/mutant.h"
#include "kdfs/proto/cluster_map.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace kdfs {
namespace {

int count_of(const pb::Chain& chain, pb::MemberState state) {
    return static_cast<int>(
        std::count_if(chain.members().begin(),
                      chain.members().end(),
                      [state](const pb::ChainMember& m) { return m.state() == state; }));
}

pb::MemberState after_down(pb::MemberState state, bool others_serve) {
    switch (state) {
        case pb::MEMBER_SERVING:
            return others_serve ? pb::MEMBER_OFFLINE : pb::MEMBER_LAST_SERVING;
        case pb::MEMBER_SYNCING:
        case pb::MEMBER_WAITING:
            return pb::MEMBER_OFFLINE;
        default:
            return state;
    }
}

pb::MemberState after_up(pb::MemberState state, bool others_serve) {
    switch (state) {
        case pb::MEMBER_LAST_SERVING:
            return pb::MEMBER_SERVING;
        case pb::MEMBER_OFFLINE:
            if (!others_serve && mutant("serve_stale_survivor")) {
                return pb::MEMBER_SERVING;
            }
            return others_serve ? pb::MEMBER_SYNCING : pb::MEMBER_WAITING;
        default:
            return state;
    }
}

pb::MemberState after_sync(pb::MemberState state) {
    return state == pb::MEMBER_SYNCING ? pb::MEMBER_SERVING : state;
}

int rank(pb::MemberState state) {
    if (state == pb::MEMBER_SERVING) {
        return 0;
    }
    return state == pb::MEMBER_SYNCING ? 1 : 2;
}

void settle_and_reorder(pb::Chain& chain) {
    bool serves = count_of(chain, pb::MEMBER_SERVING) > 0;
    std::vector<pb::ChainMember> members(chain.members().begin(), chain.members().end());
    for (pb::ChainMember& m : members) {
        if (serves && m.state() == pb::MEMBER_WAITING) {
            m.set_state(pb::MEMBER_SYNCING);
        } else if (!serves && m.state() == pb::MEMBER_SYNCING) {
            m.set_state(pb::MEMBER_WAITING);
        } else if (serves && m.state() == pb::MEMBER_LAST_SERVING) {
            m.set_state(pb::MEMBER_OFFLINE);
        }
    }
    std::stable_sort(members.begin(),
                     members.end(),
                     [](const pb::ChainMember& a, const pb::ChainMember& b) {
                         return rank(a.state()) < rank(b.state());
                     });
    for (int i = 0; i < chain.members_size(); ++i) {
        *chain.mutable_members(i) = members[static_cast<size_t>(i)];
    }
}

bool same_members(const pb::Chain& a, const pb::Chain& b) {
    for (int i = 0; i < a.members_size(); ++i) {
        if (a.members(i).target() != b.members(i).target() ||
            a.members(i).state() != b.members(i).state()) {
            return false;
        }
    }
    return true;
}

pb::Chain settled(pb::Chain chain, const pb::Chain& before) {
    settle_and_reorder(chain);
    if (!same_members(before, chain)) {
        chain.set_version(before.version() + 1);
    }
    return chain;
}

}  // namespace

pb::Chain apply_event(pb::Chain chain, TargetId target, MemberEvent event) {
    if (event == MemberEvent::kTargetDown) {
        return apply_down(std::move(chain), {target});
    }
    pb::MemberState state = member_state(chain, target);
    if (state == pb::MEMBER_NONE) {
        return chain;
    }
    pb::Chain before = chain;
    int serving = count_of(chain, pb::MEMBER_SERVING);
    bool others_serve = serving > (state == pb::MEMBER_SERVING ? 1 : 0);
    for (pb::ChainMember& m : *chain.mutable_members()) {
        if (m.target() == target.value) {
            m.set_state(event == MemberEvent::kTargetUp ? after_up(state, others_serve)
                                                        : after_sync(state));
        }
    }
    return settled(std::move(chain), before);
}

pb::Chain apply_down(pb::Chain chain, const std::set<TargetId>& targets) {
    pb::Chain before = chain;
    auto stays = [&targets](const pb::ChainMember& m) {
        return m.state() == pb::MEMBER_SERVING && !targets.contains(TargetId(m.target()));
    };
    bool others_serve = std::any_of(chain.members().begin(), chain.members().end(), stays);
    for (pb::ChainMember& m : *chain.mutable_members()) {
        if (targets.contains(TargetId(m.target()))) {
            m.set_state(after_down(m.state(), others_serve));
        }
    }
    return settled(std::move(chain), before);
}

bool chain_is_sound(const pb::Chain& chain) {
    int serving = count_of(chain, pb::MEMBER_SERVING);
    int last = count_of(chain, pb::MEMBER_LAST_SERVING);
    if (last > 0) {
        return serving == 0 && count_of(chain, pb::MEMBER_SYNCING) == 0;
    }
    return serving > 0 && count_of(chain, pb::MEMBER_WAITING) == 0;
}

}  // namespace kdfs
