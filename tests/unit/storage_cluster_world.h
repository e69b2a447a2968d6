#pragma once

#include "kdfs/proto/member_state.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/wire.h"
#include "kdfs/rpc/rpc.h"
#include "storage/server.h"
#include "tests/sim/sim_node.h"
#include "tests/unit/storage_store_world.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::storage {

inline constexpr Duration kTestLease = std::chrono::milliseconds(600);

// A cluster manager of a few lines, which never fails: heartbeats, leases, the transition table.
class TestManager {
public:
    TestManager(Env& env, uint64_t nodes, uint64_t chains)
        : env_(env),
          nodes_(nodes),
          chains_(chains),
          rpc_(env, [this](RpcRequest request) { return serve(std::move(request)); }),
          scope_(env.scheduler()) {}

    Task<Status> start() {
        map_.set_cluster_id("test");
        map_.set_node_lease_ms(static_cast<uint32_t>(kTestLease / std::chrono::milliseconds(1)));
        Status listening = co_await rpc_.listen("manager:1");
        scope_.spawn(tick());
        co_return listening;
    }
    const pb::ClusterMap& map() const { return map_; }
    bool formed() const { return map_.chains_size() != 0; }
    bool healthy() const {
        bool all = formed();
        for (const pb::Chain& chain : map_.chains()) {
            for (const pb::ChainMember& member : chain.members()) {
                all = all && member.state() == pb::MEMBER_SERVING;
            }
        }
        return all;
    }
    void order_scrub(bool run, uint64_t bytes_per_second) {
        pb::ScrubOrder& order = *map_.mutable_scrub();
        order.set_number(order.number() + (run ? 1 : 0));
        order.set_running(run);
        order.set_bytes_per_second(bytes_per_second);
        publish();
    }
    // What the node said of its target last.
    const pb::TargetReport& report(uint64_t node) { return reports_[node]; }
    bool serves(uint64_t node, uint64_t incarnation) const {
        for (const pb::Node& one : map_.nodes()) {
            if (one.id() == node && (!one.online() || one.incarnation() != incarnation)) {
                return false;
            }
        }
        for (const pb::Chain& chain : map_.chains()) {
            if (member_state(chain, TargetId(node)) != pb::MEMBER_SERVING) {
                return false;
            }
        }
        return formed();
    }

private:
    Task<Result<RpcReply>> serve(RpcRequest request) {
        if (request.type == MessageType::kHeartbeat) {
            auto message = decode<pb::HeartbeatRequest>(request.body);
            heartbeat(*message);
            pb::HeartbeatReply reply;
            if (message->map_epoch() < map_.epoch()) {
                *reply.mutable_map() = map_;
            }
            co_return RpcReply(encode(reply));
        }
        if (request.type == MessageType::kSyncDone) {
            auto message = decode<pb::SyncDoneRequest>(request.body);
            for (pb::Chain& chain : *map_.mutable_chains()) {
                if (chain.id() != message->chain()) {
                    continue;
                }
                if (chain.version() != message->chain_version()) {
                    co_return Error(Errc::kStaleMap, "another version");
                }
                chain = apply_event(chain, TargetId(message->target()), MemberEvent::kSyncDone);
                publish();
            }
            co_return RpcReply(encode(pb::SyncDoneReply()));
        }
        pb::GetMapReply reply;
        *reply.mutable_map() = map_;
        co_return RpcReply(encode(reply));
    }
    void heartbeat(const pb::HeartbeatRequest& message) {
        heard_[message.node()] = env_.now();
        pb::Node* node = nullptr;
        for (pb::Node& one : *map_.mutable_nodes()) {
            node = one.id() == message.node() ? &one : node;
        }
        if (node == nullptr) {
            node = map_.add_nodes();
            node->set_id(message.node());
            pb::Target* target = map_.add_targets();
            target->set_id(message.node());
            target->set_node(message.node());
        }
        bool same = node->online() && node->incarnation() == message.incarnation() &&
                    node->address() == message.address();
        bool was_full = same && reports_[message.node()].full();
        reports_[message.node()] = message.targets(0);
        if (same) {
            take_full(message.node(), was_full, message.targets(0).full());
            return;
        }
        if (node->online()) {
            event(message.node(), MemberEvent::kTargetDown);
        }
        node->set_online(true);
        node->set_incarnation(message.incarnation());
        node->set_address(message.address());
        event(message.node(), MemberEvent::kTargetUp);
        if (!formed() && heard_.size() == nodes_) {
            form();
        }
        publish();
    }
    void take_full(uint64_t target, bool was, bool is) {
        uint64_t before = versions();
        for (pb::Chain& chain : *map_.mutable_chains()) {
            bool syncing = member_state(chain, TargetId(target)) == pb::MEMBER_SYNCING;
            if ((is && syncing) || (was && !is)) {
                chain = apply_event(chain,
                                    TargetId(target),
                                    is ? MemberEvent::kTargetDown : MemberEvent::kTargetUp);
            }
        }
        if (versions() != before) {
            publish();
        }
    }
    uint64_t versions() const {
        uint64_t sum = 0;
        for (const pb::Chain& chain : map_.chains()) {
            sum += chain.version();
        }
        return sum;
    }
    void form() {
        for (uint64_t i = 1; i <= chains_; ++i) {
            pb::Chain* chain = map_.add_chains();
            chain->set_id(i);
            chain->set_version(1);
            for (uint64_t k = 0; k < nodes_; ++k) {
                pb::ChainMember* member = chain->add_members();
                member->set_target((i + k) % nodes_ + 1);
                member->set_state(pb::MEMBER_SERVING);
            }
        }
    }
    void event(uint64_t target, MemberEvent what) {
        for (pb::Chain& chain : *map_.mutable_chains()) {
            chain = apply_event(chain, TargetId(target), what);
        }
    }
    void publish() {
        map_.set_epoch(map_.epoch() + 1);
        pb::MapUpdate update;
        *update.mutable_map() = map_;
        for (const auto& [id, connection] : rpc_.connections()) {
            connection->notify(MessageType::kMapUpdate, encode(update));
        }
    }
    Task<void> tick() {
        for (;;) {
            co_await sleep_for(env_.scheduler(), std::chrono::milliseconds(20));
            for (pb::Node& node : *map_.mutable_nodes()) {
                if (node.online() && env_.now() - heard_[node.id()] > kTestLease) {
                    node.set_online(false);
                    event(node.id(), MemberEvent::kTargetDown);
                    publish();
                }
            }
        }
    }

    Env& env_;
    uint64_t nodes_;
    uint64_t chains_;
    pb::ClusterMap map_;
    std::map<uint64_t, TimePoint> heard_;
    std::map<uint64_t, pb::TargetReport> reports_;
    RpcServer rpc_;
    TaskScope scope_;
};

// What a client of the chunks does: asks for the map, tries until it works.
class TestClient {
public:
    explicit TestClient(Env& env)
        : env_(env), manager_(env, "manager:1", ChannelKind::kControl), peers_(env) {}

    Task<pb::WriteReply> write(ChunkKey key, ChunkWrite change, uint64_t session, bool sync) {
        pb::WriteRequest message;
        message.set_chain(key.chain.value);
        set_key(*message.mutable_chunk(), key.chunk);
        message.set_kind(change.kind);
        message.set_offset(change.offset);
        message.set_checksums(pack_sums(change.sums));
        message.set_session(session);
        message.set_write_id(++write_ids_[session]);
        message.set_sync(sync);
        for (;;) {
            const pb::Chain* chain = map_ ? map_->chain(key.chain) : nullptr;
            TargetId head = chain == nullptr ? TargetId() : head_of(*chain);
            if (head) {
                message.set_chain_version(chain->version());
                RpcCall call(MessageType::kWrite, encode(message), change.data, deadline());
                auto reply =
                    co_await peers_.to(map_->node_of(head)->address()).call(std::move(call));
                if (reply.ok()) {
                    co_return *decode<pb::WriteReply>(reply->body);
                }
                last_error_ = reply.error();
            }
            co_await refresh();
        }
    }
    // From a member picked at random; all must agree.
    Task<std::optional<std::string>> read(ChunkKey key) {
        pb::ReadRequest message;
        message.set_chain(key.chain.value);
        set_key(*message.mutable_chunk(), key.chunk);
        message.set_length(kPieceBytesMax);
        for (;;) {
            const pb::Chain* chain = map_ ? map_->chain(key.chain) : nullptr;
            std::vector<TargetId> serving;
            if (chain != nullptr) {
                serving = serving_members(*chain);
            }
            if (!serving.empty()) {
                TargetId from = serving[env_.random().below(serving.size())];
                message.set_chain_version(chain->version());
                RpcCall call(MessageType::kRead, encode(message), deadline());
                auto answer =
                    co_await peers_.to(map_->node_of(from)->address()).call(std::move(call));
                if (answer.ok()) {
                    auto reply = decode<pb::ReadReply>(answer->body);
                    std::optional<std::string> out;
                    if (reply->version() != 0) {
                        out = std::string(answer->payload.flatten().view());
                        EXPECT_EQ(pack_sums(sums_of(0, *out)), reply->checksums());
                    }
                    co_return out;
                }
                last_error_ = answer.error();
            }
            co_await refresh();
        }
    }
    Task<void> remove_data(ChainId chain_id, DataId data, uint64_t from_index) {
        pb::RemoveDataRequest message;
        message.set_chain(chain_id.value);
        message.set_data(data.value);
        message.set_from_index(from_index);
        message.set_number(++removals_);
        for (;;) {
            const pb::Chain* chain = map_ ? map_->chain(chain_id) : nullptr;
            TargetId head = chain == nullptr ? TargetId() : head_of(*chain);
            if (head) {
                message.set_chain_version(chain->version());
                RpcCall call(MessageType::kRemoveData, encode(message), deadline());
                auto reply =
                    co_await peers_.to(map_->node_of(head)->address()).call(std::move(call));
                if (reply.ok()) {
                    co_return;
                }
                last_error_ = reply.error();
            }
            co_await refresh();
        }
    }
    const Error& last_error() const { return last_error_; }

private:
    TimePoint deadline() { return env_.now() + std::chrono::seconds(2); }
    Task<void> refresh() {
        co_await sleep_for(env_.scheduler(), std::chrono::milliseconds(20));
        RpcCall call(MessageType::kGetMap, encode(pb::GetMapRequest()), deadline());
        auto answer = co_await manager_.call(std::move(call));
        if (answer.ok()) {
            auto reply = decode<pb::GetMapReply>(answer->body);
            auto made = ClusterMap::make(reply->map());
            if (made.ok()) {
                map_ = *made;
            }
        }
    }

    Env& env_;
    uint64_t removals_ = 0;
    RpcChannel manager_;
    PeerPool peers_;
    std::shared_ptr<const ClusterMap> map_;
    std::map<uint64_t, uint64_t> write_ids_;
    Error last_error_;
};

// A manager, storage daemons with one target each, and a client, on simulated machines.
class ClusterWorld {
public:
    ClusterWorld(uint64_t seed, uint64_t nodes, uint64_t chains) : shared_(seed) {
        manager_ = std::make_unique<sim::SimNode>(
            shared_,
            identity(PeerRole::kMds, 0, "manager"),
            [nodes, chains](sim::SimNode&, Env& env) {
                return std::make_unique<ManagerProcess>(env, nodes, chains);
            });
        client_ = std::make_unique<sim::SimNode>(
            shared_,
            identity(PeerRole::kClient, 0, "client"),
            [](sim::SimNode&, Env& env) { return std::make_unique<ClientProcess>(env); });
        for (uint64_t i = 1; i <= nodes; ++i) {
            storage_.push_back(std::make_unique<sim::SimNode>(
                shared_,
                identity(PeerRole::kStorage, i, "storage" + std::to_string(i)),
                [this, i](sim::SimNode& node, Env& env) {
                    return std::make_unique<StorageProcess>(node, env, i, capacity(i));
                }));
        }
    }
    void boot() {
        manager_->boot();
        client_->boot();
        for (auto& node : storage_) {
            node->boot();
        }
        run_until([this] { return manager().healthy(); }, std::chrono::seconds(20));
    }
    bool step() { return shared_.clock.run_one(shared_.clock.now() + std::chrono::hours(1)); }
    template <class Condition>
    bool run_until(Condition condition, Duration within) {
        TimePoint end = shared_.clock.now() + within;
        while (!condition()) {
            if (shared_.clock.now() > end || !step()) {
                return false;
            }
        }
        return true;
    }
    void run_for(Duration time) {
        run_until([] { return false; }, time);
    }
    // Runs `task` on a machine to its end; false if that takes longer than `within`.
    bool run_on(sim::SimNode& node, Task<void> task, Duration within) {
        auto done = std::make_shared<bool>(false);
        node.spawn(then_set(std::move(task), done));
        return run_until([done] { return *done; }, within);
    }
    TestManager& manager() { return static_cast<ManagerProcess&>(manager_->process()).manager; }
    TestClient& client() { return static_cast<ClientProcess&>(client_->process()).client; }
    sim::SimNode& manager_node() { return *manager_; }
    sim::SimNode& client_node() { return *client_; }
    sim::SimNode& storage_node(uint64_t node) { return *storage_[node - 1]; }
    Server& storage(uint64_t node) {
        return static_cast<StorageProcess&>(storage_node(node).process()).server;
    }
    ChunkStore& store(uint64_t node) { return *storage(node).store(TargetId(node)); }
    uint64_t nodes() const { return storage_.size(); }
    // Whether another node serves everything, in the life in which the manager knows it.
    bool can_lose(uint64_t node) {
        for (uint64_t other = 1; other <= nodes(); ++other) {
            if (other != node && storage_node(other).started() &&
                manager().serves(other, storage(other).view().incarnation())) {
                return true;
            }
        }
        return false;
    }
    sim::SimShared& shared() { return shared_; }
    // From the node's next start on.
    void set_capacity(uint64_t node, uint64_t bytes) { capacities_[node] = bytes; }

private:
    uint64_t capacity(uint64_t node) const {
        auto found = capacities_.find(node);
        return found == capacities_.end() ? 64 * MiB : found->second;
    }
    struct ManagerProcess final : sim::Process {
        TestManager manager;
        ManagerProcess(Env& env, uint64_t nodes, uint64_t chains) : manager(env, nodes, chains) {}
        Task<Status> start() override { return manager.start(); }
        Task<void> stop() override { co_return; }
    };
    struct ClientProcess final : sim::Process {
        TestClient client;
        explicit ClientProcess(Env& env) : client(env) {}
        Task<Status> start() override { co_return Status(); }
        Task<void> stop() override { co_return; }
    };
    struct StorageProcess final : sim::Process {
        sim::SimDisk disk;
        MemKv kv;
        Server server;
        StorageProcess(sim::SimNode& node, Env& env, uint64_t id, uint64_t capacity_bytes)
            : disk(env, node.disk("t", 1 * GiB)),
              kv(env, node.kv("t")),
              server(env, targets(disk, kv, id, capacity_bytes), options(id)) {}
        Task<Status> start() override { return server.start(); }
        Task<void> stop() override { return server.stop(); }

        static std::vector<TargetOptions> targets(Disk& disk,
                                                  KvStore& kv,
                                                  uint64_t id,
                                                  uint64_t capacity_bytes) {
            TargetOptions target;
            target.disk = &disk;
            target.kv = &kv;
            target.store = StoreWorld::default_options();
            target.store.target = TargetId(id);
            target.store.capacity_bytes = capacity_bytes;
            target.store.sync_interval = std::chrono::milliseconds(100);
            return {target};
        }
        static ServerOptions options(uint64_t id) {
            ServerOptions out;
            out.node = NodeId(id);
            out.name = "storage" + std::to_string(id);
            out.manager = "manager:1";
            out.listen = "storage" + std::to_string(id) + ":0";
            return out;
        }
    };
    static PeerIdentity identity(PeerRole role, uint64_t node, std::string name) {
        PeerIdentity out;
        out.role = role;
        out.node = NodeId(node);
        out.name = std::move(name);
        return out;
    }
    static Task<void> then_set(Task<void> task, std::shared_ptr<bool> done) {
        co_await std::move(task);
        *done = true;
    }

    sim::SimShared shared_;
    std::map<uint64_t, uint64_t> capacities_;
    std::unique_ptr<sim::SimNode> manager_;
    std::unique_ptr<sim::SimNode> client_;
    std::vector<std::unique_ptr<sim::SimNode>> storage_;
};

}  // namespace kdfs::storage
