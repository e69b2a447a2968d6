#include "storage/cluster_view.h"

#include "kdfs/base/mutant.h"

#include <algorithm>
#include <utility>

namespace kdfs::storage {
namespace {

std::string host_of(const std::string& address) { return address.substr(0, address.rfind(':')); }

}  // namespace

bool ClusterView::acting(TimePoint now) const {
    if (!map_ || (now >= act_until_ && !mutant("serve_past_self_fence"))) {
        return false;
    }
    const pb::Node* self = map_->node(node_);
    return self != nullptr && self->online() &&
           (self->incarnation() == incarnation_ || mutant("serve_in_anothers_place"));
}

Result<const pb::Chain*> ClusterView::chain(ChainId chain, uint64_t version, TimePoint now) const {
    std::string self = "storage node " + std::to_string(node_.value);
    if (!acting(now)) {
        return Error(Errc::kNotServing,
                     self + " is not in the cluster map or has no contact with the manager");
    }
    const pb::Chain* found = map_->chain(chain);
    std::string name = self + ": chain " + std::to_string(chain.value);
    if (found == nullptr) {
        return Error(Errc::kStaleMap,
                     name + " is unknown under epoch " + std::to_string(map_->epoch().value));
    }
    if (found->version() != version && !mutant("skip_chain_version_check")) {
        return Error(Errc::kStaleMap,
                     name + " has version " + std::to_string(found->version()) +
                         ", the request names " + std::to_string(version));
    }
    return found;
}

Status ClusterView::check_session(SessionId session) const {
    if (session && map_ && map_->session_fenced(session) && !mutant("ignore_session_fence")) {
        return Error(Errc::kFenced,
                     "session " + std::to_string(session.value) +
                         " was shut out after it lost contact: its client opens a new one by "
                         "itself; what it had not written is lost");
    }
    return {};
}

std::string ClusterView::address_of(TargetId target) const {
    const pb::Node* peer = map_ ? map_->node_of(target) : nullptr;
    const pb::Node* self = map_ ? map_->node(node_) : nullptr;
    if (peer == nullptr) {
        return "";
    }
    bool same_host = self != nullptr && host_of(self->address()) == host_of(peer->address());
    return same_host && !peer->unix_address().empty() ? peer->unix_address() : peer->address();
}

void ClusterView::set_map(std::shared_ptr<const ClusterMap> map) {
    map_ = std::move(map);
    changed_.pulse();
}

void ClusterView::extend_lease(TimePoint until) {
    act_until_ = std::max(act_until_, until);
    changed_.pulse();
}

}  // namespace kdfs::storage
