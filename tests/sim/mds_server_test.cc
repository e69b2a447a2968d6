// The metadata server alone, on the simulated network: storage daemons and clients are stand-ins
// that speak the protocol and nothing else.

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

namespace kdfs::sim {
namespace {

constexpr const char* kMds = "mds:1";

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
            request.set_map_epoch(map_.epoch());
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
    void set_dirty_size(uint64_t ino, uint64_t size) { sizes_[ino] = size; }
    void set_name(std::string name) { name_ = std::move(name); }
    // As after an answer to a recall, of which the client does not know whether it arrived.
    void give_back(uint64_t ino, uint64_t size) {
        held_[ino].set_mode(pb::LEASE_NONE);
        held_[ino].set_open(false);
        held_[ino].set_size(size);
    }
    void forget_caches() { no_caching_ = true; }
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
            pb::RenewRequest request;
            request.set_session(session_);
            RpcCall call(MessageType::kRenew, encode(request), deadline());
            (void)co_await channel_.call(std::move(call));
        }
    }
    Task<Result<RpcReply>> handle(RpcRequest request) {
        if (request.type != MessageType::kRecall) {
            co_return RpcReply();
        }
        auto recall = decode<pb::RecallRequest>(request.body);
        ++recalls_;
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
    std::map<uint64_t, uint64_t> sizes_;
    std::map<uint64_t, pb::HeldLease> held_;
    RpcChannel channel_;
    TaskScope scope_;
};

PeerIdentity named(std::string name) {
    PeerIdentity out;
    out.name = std::move(name);
    return out;
}

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
    // As its maker does that has it not open and wrote nothing.
    pb::MetaRequest remove_unwritten(size_t n, const std::string& name, const pb::MetaReply& made) {
        pb::MetaRequest request;
        request.set_seq(client(n).next_seq());
        pb::Remove* op = request.mutable_remove();
        op->set_parent(kRootInode.value);
        op->set_name(name);
        op->set_not_open_ino(made.attr().ino());
        op->set_unwritten_lease_seq(made.grant().lease_seq());
        return request;
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

TEST_P(MdsServerTest, AFileIsCreatedWithALeaseAndTheSecondClientSeesWhatTheFirstKept) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok()) << made.error().to_string();
    EXPECT_EQ(made->grant().mode(), pb::LEASE_EXCLUSIVE);
    EXPECT_EQ(made->parent_grant().mode(), pb::LEASE_READ);
    client(0).set_dirty_size(made->attr().ino(), 4711);

    auto seen = meta(1, getattr(made->attr().ino()));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 4711U);
    EXPECT_GE(client(0).recalls(), 1U);
    // The first still has it open for writing: nobody may cache it.
    EXPECT_EQ(seen->grant().mode(), pb::LEASE_NONE);
}

TEST_P(MdsServerTest, TheSameRequestIsAnsweredTwiceAndDoneOnce) {
    open(0);
    pb::MetaRequest request = create(0, "f");
    request.mutable_create()->set_exclusive(true);
    auto first = meta(0, request);

    auto second = meta(0, request);

    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_EQ(first->attr().ino(), second->attr().ino());
    request.set_seq(client(0).next_seq());
    EXPECT_EQ(meta(0, request).error().code, Errc::kExists);
}

TEST_P(MdsServerTest, AClientThatIsGoneIsFencedAndItsSizesAreFoundInTheChunks) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    lengths_[made->attr().data()] = 12345;
    clients_[0]->cut_power();

    auto seen = meta(1, getattr(made->attr().ino()));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 12345U);
    EXPECT_EQ(seen->grant().mode(), pb::LEASE_READ);
}

TEST_P(MdsServerTest, ASilentSessionKeepsItsPlaceOnceWhatOthersWantedIsGivenBack) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    auto seen = meta(1, getattr(made->attr().ino()));
    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    ASSERT_GE(client(0).recalls(), 1U);
    clients_[0]->cut_power();

    pass(std::chrono::seconds(30));

    auto count = run_on(*clients_[1], client(1).count_sessions());
    ASSERT_TRUE(count && count->ok()) << (count ? count->error().to_string() : "no answer");
    EXPECT_EQ(**count, 2);
    pass(std::chrono::seconds(60));
    count = run_on(*clients_[1], client(1).count_sessions());
    ASSERT_TRUE(count && count->ok()) << (count ? count->error().to_string() : "no answer");
    EXPECT_EQ(**count, 1);
}

TEST_P(MdsServerTest, ARestartedServerLetsNobodyInBeforeTheHoldersAreBack) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    uint64_t ino = made->attr().ino();
    client(0).set_dirty_size(ino, 99);
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    EXPECT_EQ(meta(1, getattr(ino)).error().code, Errc::kBusy);
    open(1);
    auto early = run_on(*clients_[1], client(1).meta(getattr(ino)), std::chrono::seconds(2));
    EXPECT_FALSE(early.has_value());

    open(0);
    auto seen = meta(1, getattr(ino));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 99U);
}

TEST_P(MdsServerTest, ASizeWhoseReturnGotLostIsTakenAtTheResumptionUnlessItWasSetSince) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    uint64_t ino = made->attr().ino();
    client(0).give_back(ino, 99);
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(1);
    open(0);
    auto seen = meta(1, getattr(ino));
    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 99U);
    EXPECT_EQ(client(0).recalls(), 0U);
    pb::MetaRequest cut;
    cut.set_seq(client(1).next_seq());
    cut.mutable_setattr()->set_ino(ino);
    cut.mutable_setattr()->set_size(10);
    ASSERT_TRUE(meta(1, cut).ok());
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(0);
    open(1);

    seen = meta(0, getattr(ino));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 10U);
}

TEST_P(MdsServerTest, ARestartedServerWaitsNoLongerThanTheLeaseForWhoDoesNotComeBack) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    clients_[0]->cut_power();
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(1);

    auto seen = meta(1, getattr(made->attr().ino()));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
}

TEST_P(MdsServerTest, ARestartedServerDoesNotWaitForAClientThatIsKnownToBeDead) {
    client(0).set_name("dead");
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    clients_[0]->cut_power();
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(1);

    auto other = run_on(*clients_[1], client(1).end_sessions("somebody else"));
    ASSERT_TRUE(other && other->ok()) << (other ? other->error().to_string() : "no answer");
    EXPECT_EQ(**other, 0U);
    auto ended = run_on(*clients_[1], client(1).end_sessions("dead"));
    ASSERT_TRUE(ended && ended->ok()) << (ended ? ended->error().to_string() : "no answer");
    EXPECT_EQ(**ended, 1U);
    auto seen =
        run_on(*clients_[1], client(1).meta(getattr(made->attr().ino())), std::chrono::seconds(2));

    ASSERT_TRUE(seen.has_value()) << "it waited for the lease";
    EXPECT_TRUE(seen->ok()) << seen->error().to_string();
}

TEST_P(MdsServerTest, ATruncationIsAnsweredAfterTheChunksAreCut) {
    open(0);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    pb::MetaRequest flush;
    flush.set_seq(client(0).next_seq());
    flush.mutable_flush()->set_ino(made->attr().ino());
    flush.mutable_flush()->set_size(3 * MiB);
    ASSERT_TRUE(meta(0, flush).ok());
    pb::MetaRequest cut;
    cut.set_seq(client(0).next_seq());
    cut.mutable_setattr()->set_ino(made->attr().ino());
    cut.mutable_setattr()->set_size(100);

    auto done = meta(0, cut);

    ASSERT_TRUE(done.ok()) << done.error().to_string();
    EXPECT_EQ(done->attr().size(), 100U);
    EXPECT_EQ(storage(0).truncated() + storage(1).truncated(), 1U);
    EXPECT_GE(storage(0).removed() + storage(1).removed(), kWidthDefault);
}

TEST_P(MdsServerTest, TheSizeOfAFileThatIsBeingCutIsLookedForWhenItIsCut) {
    client(0).set_name("gone");
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    uint64_t ino = made->attr().ino();
    pb::MetaRequest flush;
    flush.set_seq(client(0).next_seq());
    flush.mutable_flush()->set_ino(ino);
    flush.mutable_flush()->set_size(12345);
    ASSERT_TRUE(meta(0, flush).ok());
    lengths_[made->attr().data()] = 12345;
    storage(0).keep_chunks(true);
    storage(1).keep_chunks(true);
    pb::MetaRequest cut;
    cut.set_seq(client(0).next_seq());
    cut.mutable_setattr()->set_ino(ino);
    cut.mutable_setattr()->set_size(100);
    auto early = run_on(*clients_[0], client(0).meta(cut), std::chrono::seconds(2));
    ASSERT_FALSE(early.has_value());
    clients_[0]->cut_power();
    auto ended = run_on(*clients_[1], client(1).end_sessions("gone"));
    ASSERT_TRUE(ended && ended->ok());
    pass(std::chrono::seconds(5));

    lengths_[made->attr().data()] = 100;
    storage(0).keep_chunks(false);
    storage(1).keep_chunks(false);
    auto seen = meta(1, getattr(ino));

    ASSERT_TRUE(seen.ok()) << seen.error().to_string();
    EXPECT_EQ(seen->attr().size(), 100U);
}

TEST_P(MdsServerTest, AnUnlinkedFileLivesWhileItIsOpenAndIsCollectedAfterwards) {
    open(0);
    open(1);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    uint64_t ino = made->attr().ino();
    pb::MetaRequest flush;
    flush.set_seq(client(0).next_seq());
    flush.mutable_flush()->set_ino(ino);
    flush.mutable_flush()->set_size(3 * MiB);
    ASSERT_TRUE(meta(0, flush).ok());
    pb::MetaRequest remove;
    remove.set_seq(client(1).next_seq());
    remove.mutable_remove()->set_parent(kRootInode.value);
    remove.mutable_remove()->set_name("f");
    auto removed = meta(1, remove);
    ASSERT_TRUE(removed.ok()) << removed.error().to_string();
    EXPECT_TRUE(removed->orphaned());
    EXPECT_TRUE(meta(0, getattr(ino)).ok());
    EXPECT_EQ(storage(0).removed() + storage(1).removed(), 0U);

    for (size_t n : {0U, 1U}) {
        pb::MetaRequest release;
        pb::ReleaseOne* item = release.mutable_release()->add_items();
        item->set_ino(ino);
        item->set_lease_seq(~uint64_t{0});
        ASSERT_TRUE(meta(n, release).ok());
    }
    pass(std::chrono::seconds(2));

    EXPECT_EQ(meta(0, getattr(ino)).error().code, Errc::kStaleHandle);
    EXPECT_GE(storage(0).removed() + storage(1).removed(), 1U);
}

TEST_P(MdsServerTest, NothingIsCollectedOfAFileWhoseMakerNeverWroteIt) {
    open(0);
    open(1);
    auto untouched = meta(0, create(0, "untouched"));
    ASSERT_TRUE(untouched.ok());
    EXPECT_TRUE(untouched->created());
    ASSERT_TRUE(meta(0, remove_unwritten(0, "untouched", *untouched)).ok());
    pass(std::chrono::seconds(3));
    EXPECT_EQ(storage(0).removed() + storage(1).removed(), 0U);

    // The same words about a lease that was asked back count for nothing.
    auto shared = meta(0, create(0, "shared"));
    ASSERT_TRUE(shared.ok());
    client(0).set_dirty_size(shared->attr().ino(), 3 * MiB);
    ASSERT_TRUE(meta(1, getattr(shared->attr().ino())).ok());
    ASSERT_TRUE(meta(0, remove_unwritten(0, "shared", *shared)).ok());
    pass(std::chrono::seconds(3));
    uint64_t removed = storage(0).removed() + storage(1).removed();
    EXPECT_GE(removed, 1U);

    // Nor do those about an older grant than the one that stands.
    auto again = meta(0, create(0, "again"));
    ASSERT_TRUE(again.ok());
    ASSERT_TRUE(meta(0, getattr(again->attr().ino())).ok());
    ASSERT_TRUE(meta(0, remove_unwritten(0, "again", *again)).ok());
    pass(std::chrono::seconds(3));
    EXPECT_GT(storage(0).removed() + storage(1).removed(), removed);
}

TEST_P(MdsServerTest, WhatACrashLeavesToCollectIsCollectedInTheNextLife) {
    open(0);
    constexpr int kFiles = 100;  // more than one batch
    for (int i = 0; i < kFiles; ++i) {
        std::string name = "f" + std::to_string(i);
        auto made = meta(0, create(0, name));
        ASSERT_TRUE(made.ok());
        pb::MetaRequest remove = remove_unwritten(0, name, *made);
        remove.mutable_remove()->clear_unwritten_lease_seq();
        ASSERT_TRUE(meta(0, remove).ok());
    }
    mds_->kill();
    mds_->boot();
    pass(std::chrono::seconds(20));
    EXPECT_GE(storage(0).removed() + storage(1).removed(), uint64_t{kFiles});
}

TEST_P(MdsServerTest, WhatWasSyncedSurvivesAPowerCut) {
    open(0);
    auto made = meta(0, create(0, "f"));
    ASSERT_TRUE(made.ok());
    pb::MetaRequest sync;
    sync.mutable_sync();
    ASSERT_TRUE(meta(0, sync).ok());
    uint64_t epoch = storage(0).epoch();
    mds_->cut_power();
    mds_->boot();
    pass(std::chrono::seconds(1));
    open(0);

    auto again = meta(0, getattr(made->attr().ino()));

    ASSERT_TRUE(again.ok()) << again.error().to_string();
    EXPECT_GE(storage(0).epoch(), epoch);
}

TEST_P(MdsServerTest, MembersThatComeIntoSyncTogetherArePublishedTogether) {
    storage_[1]->kill();
    storage_[1]->boot();
    pass(std::chrono::seconds(10));
    uint64_t syncing = storage(0).syncing();
    ASSERT_GE(syncing, 20U);
    uint64_t before = storage(0).maps_pushed();

    storage(0).report_synced();
    pass(std::chrono::seconds(4));

    EXPECT_EQ(storage(0).syncing(), 0U);
    EXPECT_LE(storage(0).maps_pushed() - before, 5U);
}

TEST_P(MdsServerTest, CreationsOfManyNamesRaceAndAllSucceed) {
    open(0);
    open(1);
    for (int i = 0; i < 20; ++i) {
        for (size_t n : {0U, 1U}) {
            auto made = meta(n, create(n, std::to_string(n) + "." + std::to_string(i)));
            ASSERT_TRUE(made.ok()) << made.error().to_string();
        }
    }
    pb::MetaRequest list;
    list.mutable_readdir()->set_ino(kRootInode.value);
    list.mutable_readdir()->set_entries_max(100);
    list.mutable_readdir()->set_attrs(true);

    auto names = meta(0, list);

    ASSERT_TRUE(names.ok());
    EXPECT_EQ(names->entries_size(), 40);
    // Also of the files that the other client had to itself.
    int with_attr = 0;
    for (const pb::DirEntry& e : names->entries()) {
        with_attr += e.has_attr() ? 1 : 0;
    }
    EXPECT_EQ(with_attr, 40);
}

INSTANTIATE_TEST_SUITE_P(Seeds, MdsServerTest, ::testing::Range<uint64_t>(0, 10));

}  // namespace
}  // namespace kdfs::sim
