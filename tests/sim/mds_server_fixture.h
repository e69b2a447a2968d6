#pragma once

#include "kdfs/proto/cluster_map.h"
#include "kdfs/proto/wire.h"
#include "mds/server.h"
#include "tests/sim/sim_node.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kdfs::sim::lone_mds {

inline constexpr const char* kMds = "mds:1";

class MdsProcess final : public Process {
public:
    MdsProcess(SimNode& node, Env& env)
        : store_(env, node.kv("meta")), server_(env, store_, options()) {}
    Task<Status> start() override { return server_.start(); }
    Task<void> stop() override {
        Status stopped = co_await server_.stop();
        EXPECT_TRUE(stopped.ok());
    }

private:
    static mds::Options options() {
        mds::Options out;
        out.address = kMds;
        out.expected_nodes = 2;
        return out;
    }
    MemKv store_;
    mds::Server server_;
};

// Heartbeats, keeps the map, and has chunks of given lengths.
class FakeStorage final : public Process {
public:
    FakeStorage(Env& env, uint64_t id, std::map<uint64_t, uint64_t>& lengths)
        : env_(env),
          id_(id),
          lengths_(lengths),
          channel_(env, kMds, ChannelKind::kControl, handler()),
          server_(env, handler()),
          scope_(env.scheduler()) {}
    Task<Status> start() override {
        scope_.spawn(beat());
        return server_.listen("storage" + std::to_string(id_) + ":1");
    }
    Task<void> stop() override { co_return; }
    uint64_t removed() const { return removed_; }
    uint64_t truncated() const { return truncated_; }
    // No removal gets through until this is taken back.
    void keep_chunks(bool keep) { keeps_chunks_ = keep; }
    // Says until it is told otherwise that it acts by the map it has now.
    void act_by_this_map(bool stays) {
        acts_by_ = stays ? std::optional<uint64_t>(map_.epoch()) : std::nullopt;
    }
    uint64_t epoch() const { return map_.epoch(); }
    uint64_t maps_pushed() const { return maps_pushed_; }
    uint64_t syncing() const {
        uint64_t out = 0;
        for (const pb::Chain& chain : map_.chains()) {
            for (const pb::ChainMember& member : chain.members()) {
                out += member.state() == pb::MEMBER_SYNCING ? 1 : 0;
            }
        }
        return out;
    }
    // Says of each syncing member that it has everything, all at once.
    void report_synced() {
        for (const pb::Chain& chain : map_.chains()) {
            for (const pb::ChainMember& member : chain.members()) {
                if (member.state() == pb::MEMBER_SYNCING) {
                    pb::SyncDoneRequest request;
                    request.set_chain(chain.id());
                    request.set_chain_version(chain.version());
                    request.set_target(member.target());
                    scope_.spawn(report(std::move(request)));
                }
            }
        }
    }

private:
    Task<void> report(pb::SyncDoneRequest request) {
        RpcCall call(MessageType::kSyncDone, encode(request), env_.now() + std::chrono::seconds(5));
        auto reply = co_await channel_.call(std::move(call));
        EXPECT_TRUE(reply.ok()) << reply.error().to_string();
    }
    RpcHandler handler() {
        return [this](RpcRequest request) { return handle(std::move(request)); };
    }
    Task<void> beat() {
        uint64_t incarnation = env_.random().u64() | 1;
        while (true) {
            pb::HeartbeatRequest request;
            request.set_node(id_);
            request.set_incarnation(incarnation);
            request.set_name("n" + std::to_string(id_));
            request.set_address("storage" + std::to_string(id_) + ":1");
            request.set_map_epoch(acts_by_.value_or(map_.epoch()));
            request.set_cluster_id(map_.cluster_id());
            request.add_targets()->set_target(id_);
            RpcCall call(MessageType::kHeartbeat,
                         encode(request),
                         env_.now() + std::chrono::seconds(1));
            auto reply = co_await channel_.call(std::move(call));
            if (reply.ok()) {
                auto body = decode<pb::HeartbeatReply>(reply->body);
                if (body->has_map()) {
                    map_ = body->map();
                }
            }
            co_await sleep_for(env_.scheduler(), std::chrono::milliseconds(600));
        }
    }
    Task<Result<RpcReply>> handle(RpcRequest request) {
        if (request.type == MessageType::kMapUpdate) {
            map_ = decode<pb::MapUpdate>(request.body)->map();
            ++maps_pushed_;
            co_return RpcReply();
        }
        if (request.type == MessageType::kRemoveData) {
            if (keeps_chunks_) {
                co_return Error(Errc::kBusy, "removals are held up");
            }
            ++removed_;
            co_return RpcReply(encode(pb::RemoveDataReply()));
        }
        if (request.type == MessageType::kWrite) {
            ++truncated_;
            co_return RpcReply(encode(pb::WriteReply()));
        }
        pb::ListChunksReply list;
        uint64_t data = decode<pb::ListChunksRequest>(request.body)->only_data();
        if (lengths_.contains(data)) {
            pb::ChunkEntry* entry = list.add_entries();
            entry->mutable_chunk()->set_data(data);
            entry->set_length(lengths_[data]);
        }
        co_return RpcReply(encode(list));
    }

    Env& env_;
    uint64_t id_;
    std::map<uint64_t, uint64_t>& lengths_;
    pb::ClusterMap map_;
    std::optional<uint64_t> acts_by_;
    uint64_t maps_pushed_ = 0;
    uint64_t removed_ = 0;
    uint64_t truncated_ = 0;
    bool keeps_chunks_ = false;
    RpcChannel channel_;
    RpcServer server_;
    TaskScope scope_;
};

// A client whose caching is a table of what it was granted.
class FakeClient final : public Process {
public:
    explicit FakeClient(Env& env)
        : env_(env),
          channel_(env, kMds, ChannelKind::kControl, handler()),
          scope_(env.scheduler()) {}
    Task<Status> start() override { co_return Status(); }
    Task<void> stop() override { co_return; }

    // Opens a session, or resumes it on a new connection.
    Task<Status> open() {
        pb::OpenSessionRequest request;
        request.set_name(name_);
        request.set_resume(session_);
        request.set_attempt(++attempt_);
        for (const auto& [ino, held] : held_) {
            *request.add_held() = held;
        }
        RpcCall call(MessageType::kOpenSession, encode(request), deadline());
        auto reply = co_await channel_.call(std::move(call));
        if (!reply.ok()) {
            co_return std::move(reply).error();
        }
        auto body = decode<pb::OpenSessionReply>(reply->body);
        session_ = body->session();
        for (uint64_t ino : body->refused()) {
            held_.erase(ino);
        }
        if (!renewing_) {
            renewing_ = true;
            scope_.spawn(renew());
        }
        co_return Status();
    }
    Task<Result<pb::MetaReply>> meta(pb::MetaRequest request) {
        request.set_session(session_);
        RpcCall call(MessageType::kMeta, encode(request), deadline());
        auto reply = co_await channel_.call(std::move(call));
        if (!reply.ok()) {
            co_return std::move(reply).error();
        }
        auto body = decode<pb::MetaReply>(reply->body);
        if (body.ok() && body->grant().lease_seq() != 0 && !no_caching_) {
            pb::HeldLease& held = held_[body->attr().ino()];
            held.set_ino(body->attr().ino());
            held.set_mode(body->grant().mode());
            held.set_lease_seq(body->grant().lease_seq());
            held.set_open(held.open() || request.has_create() || request.has_open());
        }
        co_return body;
    }
    // As a tool does for a client that is gone.
    Task<Result<uint32_t>> end_sessions(std::string name) {
        pb::EndSessionRequest request;
        request.set_name(name);
        RpcCall call(MessageType::kEndSession, encode(request), deadline());
        auto reply = co_await channel_.call(std::move(call));
        if (!reply.ok()) {
            co_return std::move(reply).error();
        }
        co_return decode<pb::EndSessionReply>(reply->body)->ended();
    }
    Task<Result<int>> count_sessions() {
        pb::StatusRequest request;
        RpcCall call(MessageType::kStatus, encode(request), deadline());
        auto reply = co_await channel_.call(std::move(call));
        if (!reply.ok()) {
            co_return std::move(reply).error();
        }
        co_return decode<pb::StatusReply>(reply->body)->sessions_size();
    }
    uint64_t next_seq() { return ++seq_; }
    // The number of the lease that goes with it.
    uint64_t close(uint64_t ino) {
        held_[ino].set_open(false);
        held_[ino].set_mode(pb::LEASE_NONE);
        return held_[ino].lease_seq();
    }
    void set_dirty_size(uint64_t ino, uint64_t size) { sizes_[ino] = size; }
    void set_name(std::string name) { name_ = std::move(name); }
    // As after an answer to a recall, of which the client does not know whether it arrived.
    void give_back(uint64_t ino, uint64_t size) {
        held_[ino].set_mode(pb::LEASE_NONE);
        held_[ino].set_open(false);
        held_[ino].set_size(size);
    }
    void forget_caches() { no_caching_ = true; }
    // Says so when it resumes the session.
    void claim(uint64_t ino, pb::LeaseMode mode) {
        held_[ino].set_ino(ino);
        held_[ino].set_mode(mode);
        held_[ino].set_open(false);
    }
    // As a process that is stopped: its connection stays, and nothing comes over it.
    void freeze() { frozen_ = true; }
    // Renews its lease, but answers no recall.
    void withhold() { withholding_ = true; }
    // When the last renewal that the server took was sent.
    TimePoint renewed() const { return renewed_; }
    uint64_t recalls() const { return recalls_; }
    uint64_t session() const { return session_; }
    const std::map<uint64_t, pb::HeldLease>& held() const { return held_; }

private:
    TimePoint deadline() { return env_.now() + std::chrono::seconds(60); }
    RpcHandler handler() {
        return [this](RpcRequest request) { return handle(std::move(request)); };
    }
    Task<void> renew() {
        while (true) {
            co_await sleep_for(env_.scheduler(), std::chrono::seconds(2));
            if (frozen_) {
                continue;
            }
            pb::RenewRequest request;
            request.set_session(session_);
            TimePoint sent = env_.now();
            RpcCall call(MessageType::kRenew, encode(request), deadline());
            auto reply = co_await channel_.call(std::move(call));
            renewed_ = reply.ok() ? sent : renewed_;
        }
    }
    Task<Result<RpcReply>> handle(RpcRequest request) {
        if (request.type != MessageType::kRecall) {
            co_return RpcReply();
        }
        auto recall = decode<pb::RecallRequest>(request.body);
        ++recalls_;
        if (frozen_ || withholding_) {
            co_await sleep_for(env_.scheduler(), std::chrono::hours(1));
        }
        pb::RecallReply reply;
        pb::ReleaseOne* item = reply.mutable_released();
        pb::HeldLease& held = held_[recall->ino()];
        item->set_ino(recall->ino());
        item->set_keep(recall->keep());
        item->set_lease_seq(recall->lease_seq());
        item->set_still_open(held.open());
        held.set_mode(recall->keep());
        if (sizes_.contains(recall->ino())) {
            item->set_size(sizes_[recall->ino()]);
        }
        co_return RpcReply(encode(reply));
    }

    Env& env_;
    std::string name_ = "client";
    uint64_t session_ = 0;
    uint64_t seq_ = 0;
    uint64_t attempt_ = 0;
    uint64_t recalls_ = 0;
    bool renewing_ = false;
    bool no_caching_ = false;
    bool frozen_ = false;
    bool withholding_ = false;
    TimePoint renewed_{};
    std::map<uint64_t, uint64_t> sizes_;
    std::map<uint64_t, pb::HeldLease> held_;
    RpcChannel channel_;
    TaskScope scope_;
};

inline PeerIdentity named(std::string name) {
    PeerIdentity out;
    out.name = std::move(name);
    return out;
}

// The metadata server alone, on the simulated network: storage daemons and clients are stand-ins
// that speak the protocol and nothing else.
class MdsServerTest : public ::testing::TestWithParam<uint64_t> {
protected:
    // Odd seeds draw faults of the store.
    MdsServerTest() : shared_(GetParam()) {
        shared_.faults.set_enabled(GetParam() % 2 == 1);
        SimNode::Factory mds = [](SimNode& node, Env& env) {
            return std::make_unique<MdsProcess>(node, env);
        };
        mds_ = std::make_unique<SimNode>(shared_, named("mds"), mds);
        for (uint64_t id = 1; id <= 2; ++id) {
            SimNode::Factory storage = [this, id](SimNode&, Env& env) {
                return std::make_unique<FakeStorage>(env, id, lengths_);
            };
            storage_.push_back(
                std::make_unique<SimNode>(shared_, named("storage" + std::to_string(id)), storage));
        }
        SimNode::Factory client = [](SimNode&, Env& env) {
            return std::make_unique<FakeClient>(env);
        };
        for (const char* name : {"a", "b"}) {
            clients_.push_back(std::make_unique<SimNode>(shared_, named(name), client));
        }
        mds_->boot();
        for (auto& s : storage_) {
            s->boot();
        }
        for (auto& c : clients_) {
            c->boot();
        }
        pass(std::chrono::seconds(3));
    }

    void pass(Duration time) {
        TimePoint until = shared_.clock.now() + time;
        while (shared_.clock.run_one(until)) {
        }
    }
    FakeClient& client(size_t n) { return dynamic_cast<FakeClient&>(clients_[n]->process()); }
    FakeStorage& storage(size_t n) { return dynamic_cast<FakeStorage&>(storage_[n]->process()); }

    template <class T>
    static Task<void> keep(Task<T> task, std::optional<T>* out) {
        T value = co_await std::move(task);
        out->emplace(std::move(value));
    }
    template <class T>
    std::optional<T> run_on(SimNode& node, Task<T> task, Duration most = std::chrono::seconds(50)) {
        auto out = std::make_unique<std::optional<T>>();
        node.spawn(keep<T>(std::move(task), out.get()));
        TimePoint until = shared_.clock.now() + most;
        while (!out->has_value() && shared_.clock.run_one(until)) {
        }
        std::optional<T> result = std::move(*out);
        // A task that is still running writes to it later.
        kept_.push_back(std::shared_ptr<void>(std::move(out)));
        return result;
    }
    void open(size_t n) {
        auto opened = run_on(*clients_[n], client(n).open());
        // A connection to a machine that lost its power is noticed by the first use only.
        for (int again = 0; again < 3 && opened && !opened->ok(); ++again) {
            pass(std::chrono::seconds(1));
            opened = run_on(*clients_[n], client(n).open());
        }
        ASSERT_TRUE(opened && opened->ok()) << (opened ? opened->error().to_string() : "no answer");
    }
    Result<pb::MetaReply> meta(size_t n, pb::MetaRequest request) {
        auto reply = run_on(*clients_[n], client(n).meta(std::move(request)));
        return reply ? std::move(*reply) : Result<pb::MetaReply>(Error(Errc::kTimeout));
    }
    pb::MetaRequest create(size_t n, const std::string& name) {
        pb::MetaRequest request;
        request.set_seq(client(n).next_seq());
        pb::Create* op = request.mutable_create();
        op->set_parent(kRootInode.value);
        op->set_name(name);
        op->set_mode(S_IFREG | 0644);
        op->set_open(true);
        op->set_want(pb::LEASE_EXCLUSIVE);
        op->set_want_parent(pb::LEASE_READ);
        return request;
    }
    pb::MetaRequest remove(size_t n, const std::string& name) {
        pb::MetaRequest request;
        request.set_seq(client(n).next_seq());
        request.mutable_remove()->set_parent(kRootInode.value);
        request.mutable_remove()->set_name(name);
        return request;
    }
    // As its maker does that has it not open and wrote nothing.
    pb::MetaRequest remove_unwritten(size_t n, const std::string& name, const pb::MetaReply& made) {
        pb::MetaRequest request = remove(n, name);
        pb::Remove* op = request.mutable_remove();
        op->set_not_open_ino(made.attr().ino());
        op->set_unwritten_lease_seq(made.grant().lease_seq());
        return request;
    }
    static pb::MetaRequest opening(uint64_t ino, bool write) {
        pb::MetaRequest request;
        request.mutable_open()->set_ino(ino);
        request.mutable_open()->set_write(write);
        request.mutable_open()->set_want(write ? pb::LEASE_EXCLUSIVE : pb::LEASE_READ);
        return request;
    }
    Result<pb::MetaReply> close(size_t n, uint64_t ino) {
        uint64_t lease_seq = client(n).close(ino);
        pb::MetaRequest request;
        request.set_seq(client(n).next_seq());
        pb::ReleaseOne* item = request.mutable_release()->add_items();
        item->set_ino(ino);
        item->set_lease_seq(lease_seq);
        return meta(n, std::move(request));
    }
    static pb::MetaRequest getattr(uint64_t ino) {
        pb::MetaRequest request;
        request.mutable_getattr()->set_ino(ino);
        request.mutable_getattr()->set_want(pb::LEASE_READ);
        return request;
    }

    SimShared shared_;
    std::map<uint64_t, uint64_t> lengths_;
    std::unique_ptr<SimNode> mds_;
    std::vector<std::unique_ptr<SimNode>> storage_;
    std::vector<std::unique_ptr<SimNode>> clients_;
    std::vector<std::shared_ptr<void>> kept_;
};

}  // namespace kdfs::sim::lone_mds
