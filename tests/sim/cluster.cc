#include "tests/sim/cluster.h"

#include "tests/sim/processes.h"
#include "tests/sim/storage_process.h"

#include <algorithm>
#include <utility>

namespace kdfs::sim {
namespace {

PeerIdentity identity(PeerRole role, uint64_t number, std::string name) {
    PeerIdentity out;
    out.role = role;
    out.node = role == PeerRole::kStorage ? NodeId(number) : NodeId();
    out.name = std::move(name);
    return out;
}

}  // namespace

ClusterOptions ClusterOptions::draw(Random& random) {
    ClusterOptions out;
    out.storage_nodes = random.range(3, 5);
    out.targets_per_node = random.range(1, 2);
    out.replicas = static_cast<uint32_t>(random.range(2, 3));
    out.clients = random.range(1, 3);
    out.width = static_cast<uint32_t>(random.range(1, 4));
    return out;
}

void ClusterOptions::draw_more(Random& random) {
    if (random.below(3) == 0) {
        storage_nodes = random.range(3, 9);
        targets_per_node = storage_nodes > 5 ? 1 : targets_per_node;
    }
    if (random.below(6) == 0) {
        replicas = 1;
    }
    if (random.below(2) == 0) {
        clients = random.range(2, 5);
    }
    if (random.below(4) == 0) {
        slab_bytes = 512 * KiB;
        disk_bytes = slab_bytes * random.range(1, 6);
    }
}

void ClusterOptions::draw_harsh(Random& random) {
    if (random.below(3) == 0) {
        replicas = 1;
    }
    if (random.below(2) == 0) {
        slab_bytes = 512 * KiB;
    }
    clients = std::max<uint64_t>(clients, 2);
}

std::string ClusterOptions::describe() const {
    std::string space = tight() ? ", disks of " + std::to_string(disk_bytes / KiB) + " KiB" : "";
    return std::to_string(storage_nodes) + " storage nodes with " +
           std::to_string(targets_per_node) + " targets, " + std::to_string(replicas) +
           " replicas, width " + std::to_string(width) + ", " + std::to_string(clients) +
           " clients" + space;
}

Cluster::Cluster(SimShared& shared, Verdict& verdict, ClusterOptions options, Workload& load)
    : shared_(shared),
      verdict_(verdict),
      options_(options),
      load_(load),
      working_(options.clients, false) {
    build_mds();
    for (uint64_t i = 1; i <= options_.storage_nodes; ++i) {
        build_storage(i);
    }
    for (uint64_t i = 1; i <= options_.clients; ++i) {
        build_client(i);
    }
    load_.set_fenced([this](SessionId session) { return session_gone(session); });
    load_.set_losses([this] { return losses(); });
}

Cluster::~Cluster() = default;

void Cluster::build_mds() {
    mds::Options options;
    options.address = kMdsAddress;
    options.expected_nodes = options_.storage_nodes;
    options.chains_per_target = options_.chains_per_target;
    options.node_lease = kNodeLease;
    options.session_lease = kSessionLease;
    options.root_policy.set_chunk_bytes(options_.chunk_bytes);
    options.root_policy.set_width(options_.width);
    options.root_policy.set_replicas(options_.replicas);
    SimNode::Factory make = [options](SimNode& node, Env& env) {
        return std::make_unique<MdsProcess>(node, env, options);
    };
    mds_ = std::make_unique<SimNode>(shared_, identity(PeerRole::kMds, 0, "mds"), make);
}

void Cluster::build_storage(uint64_t number) {
    StorageProcess::Options options;
    options.node = number;
    options.targets = options_.targets_per_node;
    options.target_bytes = options_.target_bytes;
    options.slab_bytes = options_.slab_bytes;
    options.disk_bytes = options_.disk_bytes;
    SimNode::Factory make = [options](SimNode& node, Env& env) {
        return std::make_unique<StorageProcess>(node, env, options);
    };
    std::string name = "storage" + std::to_string(number);
    storage_.push_back(std::make_unique<SimNode>(shared_,
                                                 identity(PeerRole::kStorage, number, name),
                                                 std::move(make)));
}

void Cluster::build_client(uint64_t number) {
    client::ClientOptions options;
    options.mds_address = kMdsAddress;
    options.name = "client" + std::to_string(number);
    options.write_buffer_bytes = 2 * MiB;
    options.read_ahead_bytes = 256 * KiB;
    options.read_cache_bytes = MiB;
    options.window_bytes = MiB;
    SimNode::Factory make = [this, number, options](SimNode&, Env& env) {
        auto process = std::make_unique<ClientProcess>(env, options);
        client::FileClient& files = process->files();
        files.watch_leases(
            [this, number, &files](InodeId ino) { check_lease(number - 1, files, ino); });
        return process;
    };
    clients_.push_back(std::make_unique<SimNode>(shared_,
                                                 identity(PeerRole::kClient, 0, options.name),
                                                 std::move(make)));
}

std::vector<SimNode*> Cluster::all() {
    std::vector<SimNode*> out{mds_.get()};
    for (auto& node : storage_) {
        out.push_back(node.get());
    }
    for (auto& node : clients_) {
        out.push_back(node.get());
    }
    return out;
}

void Cluster::run_for(Duration time) {
    run_until([] { return false; }, time);
}

bool Cluster::run_until(const std::function<bool()>& done, Duration bound) {
    constexpr Duration kLook = std::chrono::milliseconds(100);
    constexpr uint64_t kEventsAtOneTimeMax = 3'000'000;
    TimePoint end = shared_.clock.now() + bound;
    while (!verdict_.failed()) {
        tend();
        if (done()) {
            return true;
        }
        if (shared_.clock.now() >= end) {
            return false;
        }
        TimePoint until = std::min(end, shared_.clock.now() + kLook);
        while (!verdict_.failed() && shared_.clock.run_one(until)) {
            if (shared_.clock.events_at_this_time() > kEventsAtOneTimeMax) {
                verdict_.fail(Verdict::Kind::kNoProgress, "a loop that never waits: time stands");
            }
        }
    }
    return false;
}

void Cluster::boot(SimNode& node) {
    if (!node.running()) {
        shared_.log_book.write(node.name(), LogLevel::kInfo, "*** starts");
        node.boot();
    }
}

void Cluster::gone(SimNode& node) {
    for (size_t i = 0; i < clients_.size(); ++i) {
        if (clients_[i].get() == &node) {
            working_[i] = false;
            load_.client_gone(i);
        }
    }
}

void Cluster::kill(SimNode& node) {
    if (node.running()) {
        node.kill();
        gone(node);
    }
}

void Cluster::cut_power(SimNode& node) {
    if (node.running()) {
        node.cut_power();
        if (std::any_of(storage_.begin(), storage_.end(), [&](auto& s) {
                return s.get() == &node;
            })) {
            load_.note_storage_power_cut(options_.replicas == 1);
        }
        gone(node);
    }
}

void Cluster::cut_all_storage_power() {
    for (auto& node : storage_) {
        cut_power(*node);
    }
    load_.note_storage_power_cut(true);
}

void Cluster::boot_all() {
    for (SimNode* node : all()) {
        boot(*node);
    }
}

void Cluster::enlarge_disks() {
    for (auto& node : storage_) {
        for (auto& [name, disk] : node->disks()) {
            disk->set_capacity(options_.target_bytes);
        }
    }
}

void Cluster::tend() {
    // What the metadata server said lasts when it is down and nobody else has heard.
    load_.ask_sessions();
    load_.notice_losses();
    check_all_leases();
    check_fences();
    for (SimNode* node : all()) {
        if (node->running() && !node->failure().ok()) {
            shared_.log_book.write(node->name(),
                                   LogLevel::kWarn,
                                   "*** ended: " + node->failure().error().to_string());
            node->kill();
            gone(*node);
            boot(*node);
        }
    }
    for (size_t i = 0; i < clients_.size(); ++i) {
        if (load_.stopping()) {
            working_[i] = false;
        } else if (clients_[i]->started() && !working_[i]) {
            working_[i] = true;
            auto flows = load_.start_client(i, *files(i), clients_[i]->env());
            for (Task<void>& flow : flows) {
                clients_[i]->spawn(std::move(flow));
            }
        }
    }
}

client::FileClient* Cluster::files(size_t client) {
    if (!clients_[client]->started()) {
        return nullptr;
    }
    return &dynamic_cast<ClientProcess&>(clients_[client]->process()).files();
}

std::shared_ptr<const ClusterMap> Cluster::map() {
    if (!mds_->started()) {
        return nullptr;
    }
    return dynamic_cast<MdsProcess&>(mds_->process()).server().map();
}

namespace {

Task<void> scrub_flow(mds::Manager* manager) {
    pb::ScrubRequest request;
    request.set_run(true);
    request.set_bytes_per_second(1 * GiB);
    // Refused or not known: then there is none.
    (void)co_await manager->scrub(std::move(request));
}

}  // namespace

void Cluster::order_scrub() {
    if (mds_->started()) {
        mds_->spawn(scrub_flow(&dynamic_cast<MdsProcess&>(mds_->process()).server().manager()));
    }
}

bool Cluster::session_gone(SessionId session) {
    if (sessions_over_.contains(session)) {
        return true;
    }
    if (mds_->started()) {
        bool over = dynamic_cast<MdsProcess&>(mds_->process()).server().session_over(session);
        if (over) {
            sessions_over_.insert(session);
        }
        return over;
    }
    // While it is down, the maps that it published before still shut sessions out.
    return std::any_of(storage_.begin(), storage_.end(), [session](const auto& node) {
        if (!node->started()) {
            return false;
        }
        auto& server = dynamic_cast<StorageProcess&>(node->process()).server();
        return server.view().map() && server.view().map()->session_fenced(session);
    });
}

uint64_t Cluster::losses() {
    uint64_t most = 0;
    auto look = [&most](const std::shared_ptr<const ClusterMap>& map) {
        uint64_t sum = 0;
        if (map) {
            for (const pb::Chain& chain : map->proto().chains()) {
                sum += chain.losses();
            }
        }
        most = std::max(most, sum);
    };
    look(map());
    for (const auto& node : storage_) {
        if (node->started()) {
            look(dynamic_cast<StorageProcess&>(node->process()).server().view().map());
        }
    }
    for (size_t i = 0; i < clients_.size(); ++i) {
        if (client::FileClient* library = files(i)) {
            look(library->session().map());
        }
    }
    return most;
}

bool Cluster::healthy() { return what_is_missing().empty(); }

std::string Cluster::what_is_missing() {
    auto now = map();
    if (!now || now->proto().chains().empty()) {
        return "there are no chains";
    }
    for (const auto& node : storage_) {
        if (!node->started()) {
            return "a storage daemon does not run";
        }
    }
    for (const pb::Chain& chain : now->proto().chains()) {
        if (serving_members(chain).size() != chain.replicas()) {
            return "chain " + chain.ShortDebugString();
        }
    }
    return "";
}

}  // namespace kdfs::sim
