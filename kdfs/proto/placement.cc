#include "kdfs/proto/placement.h"

#include "kdfs/base/checksum.h"
#include "kdfs/base/codec.h"

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <tuple>

namespace kdfs {
namespace {

struct Candidate {
    uint64_t target = 0;
    uint64_t domain = 0;  // what two members of a chain may not share
    uint64_t weight = 1;
    uint64_t quota = 0;  // memberships
    uint64_t used = 0;
    uint64_t heads = 0;
};

uint64_t hash_of(uint64_t target, uint64_t chain, uint32_t replicas) {
    std::string key;
    Writer w(key);
    w.u32(kPlacementAlgorithm);
    w.u32(replicas);
    w.u64(chain);
    w.u64(target);
    return checksum(std::string_view(key));
}

// 64 - log2(u) in units of 2^-24, by repeated squaring: no floating point, so the same everywhere.
uint64_t negative_log2(uint64_t u) {
    constexpr int kFractionBits = 24;
    u = std::max<uint64_t>(u, 1);
    auto whole = static_cast<uint64_t>(std::bit_width(u) - 1);
    // The leading 32 bits as a number from 1 to 2 in units of 2^-31.
    uint64_t mantissa = whole >= 31 ? u >> (whole - 31) : u << (31 - whole);
    uint64_t fraction = 0;
    for (int i = 0; i < kFractionBits; ++i) {
        mantissa = (mantissa * mantissa) >> 31;
        fraction <<= 1;
        if ((mantissa >> 32) != 0) {
            fraction |= 1;
            mantissa >>= 1;
        }
    }
    return (uint64_t{64} << kFractionBits) - ((whole << kFractionBits) | fraction);
}

// Less is better: the exponential race that makes rendezvous hashing follow weights.
uint64_t score(const Candidate& c, uint64_t chain, uint32_t replicas) {
    constexpr uint64_t kScale = 1 << 16;
    return negative_log2(hash_of(c.target, chain, replicas)) * kScale / c.weight;
}

std::map<uint64_t, uint64_t> domains_of_nodes(const pb::ClusterMap& map, uint32_t replicas) {
    std::map<std::string, uint64_t> numbers;
    std::map<uint64_t, uint64_t> named;
    std::map<uint64_t, uint64_t> own;
    std::set<uint64_t> with_targets;
    for (const pb::Target& t : map.targets()) {
        with_targets.insert(t.node());
    }
    std::set<uint64_t> distinct;
    for (const pb::Node& n : map.nodes()) {
        std::string name =
            n.failure_domain().empty() ? "/node/" + std::to_string(n.id()) : n.failure_domain();
        uint64_t number = numbers.emplace(name, numbers.size()).first->second;
        named[n.id()] = number;
        own[n.id()] = n.id();
        if (with_targets.contains(n.id())) {
            distinct.insert(number);
        }
    }
    return distinct.size() >= replicas ? named : own;
}

std::vector<Candidate> candidates_of(const pb::ClusterMap& map, uint32_t replicas) {
    std::map<uint64_t, uint64_t> domains = domains_of_nodes(map, replicas);
    std::vector<Candidate> out;
    for (const pb::Target& t : map.targets()) {
        Candidate c;
        c.target = t.id();
        c.domain = domains[t.node()];
        c.weight = std::clamp<uint64_t>(t.weight(), 1, 1 << 20);
        out.push_back(c);
    }
    std::sort(out.begin(), out.end(), [](const Candidate& a, const Candidate& b) {
        return a.target < b.target;
    });
    return out;
}

void set_quotas(std::vector<Candidate>& all, uint64_t memberships) {
    uint64_t weights = 0;
    for (const Candidate& c : all) {
        weights += c.weight;
    }
    for (Candidate& c : all) {
        c.quota = (memberships * c.weight + weights - 1) / weights;
    }
}

// One membership of a chain. Forced domains come first: those that must be in every chain still to
// be made to use up their quota. Then who has quota left, then by hash.
class ChainMaker {
public:
    ChainMaker(std::vector<Candidate>& all, uint64_t chain, uint32_t replicas, uint64_t chains_left)
        : all_(all), chain_(chain), replicas_(replicas), chains_left_(chains_left) {}

    // The members in the order head first.
    std::vector<Candidate*> make() {
        for (uint32_t i = 0; i < replicas_; ++i) {
            Candidate* best = pick();
            if (best == nullptr) {
                break;
            }
            ++best->used;
            domains_.insert(best->domain);
            members_.push_back(best);
        }
        std::stable_sort(members_.begin(), members_.end(), [](Candidate* a, Candidate* b) {
            return a->heads * b->weight < b->heads * a->weight;
        });
        ++members_.front()->heads;
        return members_;
    }

private:
    using Key = std::tuple<bool, uint64_t, uint64_t, uint64_t>;

    Candidate* pick() {
        std::map<uint64_t, uint64_t> left;
        for (const Candidate& c : all_) {
            left[c.domain] += c.quota - std::min(c.used, c.quota);
        }
        Candidate* best = nullptr;
        Key best_key;
        for (Candidate& c : all_) {
            if (domains_.contains(c.domain)) {
                continue;
            }
            bool spent = c.used >= c.quota;
            bool free_choice = spent || left[c.domain] < chains_left_;
            uint64_t overload = spent ? (c.used - c.quota) * 1024 / c.weight + 1 : 0;
            Key key(free_choice, overload, score(c, chain_, replicas_), c.target);
            if (best == nullptr || key < best_key) {
                best = &c;
                best_key = key;
            }
        }
        return best;
    }

    std::vector<Candidate>& all_;
    uint64_t chain_;
    uint32_t replicas_;
    uint64_t chains_left_;
    std::set<uint64_t> domains_;
    std::vector<Candidate*> members_;
};

// Hands heads over inside chains until no exchange makes them more even, kPassesMax times at most.
void even_heads(std::vector<std::vector<Candidate*>>& chains) {
    constexpr int kPassesMax = 16;
    bool changed = true;
    for (int pass = 0; pass < kPassesMax && changed; ++pass) {
        changed = false;
        for (std::vector<Candidate*>& members : chains) {
            for (size_t i = 1; i < members.size(); ++i) {
                Candidate* head = members[0];
                Candidate* other = members[i];
                if ((other->heads + 1) * head->weight < head->heads * other->weight) {
                    --head->heads;
                    ++other->heads;
                    std::swap(members[0], members[i]);
                    changed = true;
                }
            }
        }
    }
}

uint32_t nodes_with_targets(const pb::ClusterMap& map) {
    std::set<uint64_t> nodes;
    for (const pb::Target& t : map.targets()) {
        nodes.insert(t.node());
    }
    return static_cast<uint32_t>(nodes.size());
}

}  // namespace

Result<PlacementPlan> make_placement_for(const pb::ClusterMap& map,
                                         uint32_t replicas,
                                         uint64_t first_chain,
                                         uint64_t table_id,
                                         uint64_t chains_per_target) {
    uint32_t nodes = nodes_with_targets(map);
    if (replicas < 1 || replicas > kReplicasMax || nodes < replicas) {
        return Error(Errc::kInvalidArgument,
                     "chains of " + std::to_string(replicas) +
                         " replicas need as many nodes (1 to " + std::to_string(kReplicasMax) +
                         "), the cluster has " + std::to_string(nodes) +
                         ": add nodes or lower the replicas");
    }
    std::vector<Candidate> all = candidates_of(map, replicas);
    uint64_t count = (chains_per_target * all.size() + replicas - 1) / replicas;
    set_quotas(all, count * replicas);
    PlacementPlan plan;
    pb::ChainTable table;
    table.set_id(table_id);
    table.set_replicas(replicas);
    std::vector<std::vector<Candidate*>> chains;
    for (uint64_t i = 0; i < count; ++i) {
        chains.push_back(ChainMaker(all, i, replicas, count - i).make());
    }
    even_heads(chains);
    for (uint64_t i = 0; i < count; ++i) {
        pb::Chain chain;
        chain.set_id(first_chain + i);
        chain.set_version(1);
        chain.set_replicas(replicas);
        for (const Candidate* c : chains[i]) {
            pb::ChainMember* m = chain.add_members();
            m->set_target(c->target);
            m->set_state(pb::MEMBER_SERVING);
        }
        table.add_chains(chain.id());
        plan.chains.push_back(std::move(chain));
    }
    plan.tables.push_back(std::move(table));
    return plan;
}

Result<PlacementPlan> make_placement(const pb::ClusterMap& map,
                                     uint64_t first_chain,
                                     uint64_t first_table,
                                     uint64_t chains_per_target) {
    uint32_t most = std::min(nodes_with_targets(map), kReplicasMax);
    if (most == 0) {
        return Error(Errc::kInvalidArgument, "no targets to make chains of: start storage daemons");
    }
    PlacementPlan plan;
    for (uint32_t replicas = 1; replicas <= most; ++replicas) {
        uint64_t chain = first_chain + plan.chains.size();
        uint64_t table = first_table + replicas - 1;
        KDFS_TRY_ASSIGN(PlacementPlan one,
                        make_placement_for(map, replicas, chain, table, chains_per_target));
        std::move(one.chains.begin(), one.chains.end(), std::back_inserter(plan.chains));
        std::move(one.tables.begin(), one.tables.end(), std::back_inserter(plan.tables));
    }
    return plan;
}

uint64_t table_for_replicas(const pb::ClusterMap& map, uint32_t replicas) {
    uint64_t id = 0;
    for (const pb::ChainTable& t : map.tables()) {
        if (t.replicas() == replicas) {
            id = std::max(id, t.id());
        }
    }
    return id;
}

}  // namespace kdfs
