#pragma once

#include "kdfs/proto/wire.h"
#include "kdfs/rpc/rpc.h"
#include "storage/chunk_messages.h"
#include "storage/replicator.h"
#include "storage/resync.h"
#include "tests/unit/storage_store_world.h"

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::storage {

// What the member under test asked somebody else, who answers when the test says so.
struct Asked {
    MessageType type{};
    Buffer body;
    Completion<Result<RpcReply>> answer;

    pb::WriteRequest write() const { return *decode<pb::WriteRequest>(body); }
    template <class Message>
    void reply(const Message& message) {
        answer.complete(RpcReply(encode(message)));
    }
    void refuse(Errc code) { answer.complete(Error(code, "as the test says")); }
};

// One member of a chain in the hands of a test, which says what the cluster map is, and answers for
// the other member and the manager whenever it likes: so that it has every order of events it
// wants. Node and target 1 are the member, 2 the other one.
class MemberWorld {
public:
    static constexpr uint64_t kIncarnation = 11;
    static constexpr Duration kPatience = std::chrono::seconds(20);
    using Members = std::vector<std::pair<uint64_t, pb::MemberState>>;
    using Answer = std::shared_ptr<std::optional<Result<RpcReply>>>;

    explicit MemberWorld(const Members& members) : shared_(1), node_(shared_, identity(), make()) {
        node_.boot();
        EXPECT_TRUE(run_until([this] { return node_.started(); }));
        process().view.extend_lease(node_.env().now() + std::chrono::hours(1));
        take(map_of(1, members));
    }

    // The map with the chain's next version.
    void change_chain(const Members& members) { take(map_of(version() + 1, members)); }
    // The next epoch with the same chain, and these sessions shut out.
    void fence(uint64_t session) {
        pb::ClusterMap map = view().map()->proto();
        map.set_epoch(map.epoch() + 1);
        map.add_fenced_sessions(session);
        take(std::move(map));
    }
    // The next epoch, in which node 1 is in the hands of another daemon.
    void replace_daemon() {
        pb::ClusterMap map = view().map()->proto();
        map.set_epoch(map.epoch() + 1);
        map.mutable_nodes(0)->set_incarnation(kIncarnation + 1);
        take(std::move(map));
    }
    void start_resync() { process().resync.map_changed(); }

    template <class Condition>
    bool run_until(Condition condition) {
        TimePoint end = shared_.clock.now() + kPatience;
        while (!condition()) {
            if (!shared_.clock.run_one(end)) {
                return false;
            }
        }
        return true;
    }
    void run_for(Duration time) {
        TimePoint end = shared_.clock.now() + time;
        while (shared_.clock.run_one(end)) {
        }
    }
    // Everything that happens without time going on.
    void settle() { run_for(Duration()); }
    // Until a write has begun to go to the disk.
    bool run_until_staged() {
        shared_.fault_points.set_on([](sim::OwnerId) {}, [](sim::OwnerId) { return false; });
        const auto& counts = shared_.fault_points.counts();
        return run_until([&] { return counts.contains("storage.write.after_stage"); });
    }

    // Of the only chunk: chain 1, file 1, index 0.
    static ChunkKey key() { return key_of(1, 0); }
    pb::WriteRequest write_of(uint64_t session, uint64_t write_id, const std::string& text) {
        pb::WriteRequest message;
        message.set_chain(1);
        message.set_chain_version(version());
        set_key(*message.mutable_chunk(), key().chunk);
        message.set_kind(pb::WRITE_DATA);
        message.set_checksums(pack_sums(sums_of(0, text)));
        message.set_session(session);
        message.set_write_id(write_id);
        return message;
    }
    Answer write(const pb::WriteRequest& message, const std::string& text) {
        RpcRequest request = request_of(MessageType::kWrite, encode(message));
        request.payload.append(Buffer::copy_of(std::string_view(text)));
        return start(process().replicator.write(std::move(request)));
    }
    Answer write(uint64_t session, uint64_t write_id, const std::string& text) {
        return write(write_of(session, write_id, text), text);
    }
    // A write to its end, which the other member, if it is asked, has too.
    void write_whole(uint64_t session, uint64_t write_id, const std::string& text) {
        Answer written = write(session, write_id, text);
        run_until([&] { return *written || !asked_.empty(); });
        if (!*written) {
            next(MessageType::kWrite)->reply(pb::WriteReply());
        }
        ASSERT_TRUE(run_until([&] { return written->has_value(); }));
        ASSERT_TRUE((*written)->ok());
    }
    Answer read(uint64_t session) {
        pb::ReadRequest message;
        message.set_chain(1);
        message.set_chain_version(version());
        set_key(*message.mutable_chunk(), key().chunk);
        message.set_length(kPieceBytesMax);
        message.set_session(session);
        RpcRequest request = request_of(MessageType::kRead, encode(message));
        return start(process().replicator.read(std::move(request)));
    }
    // How it was answered, none for success; kTimeout if it was not.
    std::optional<Errc> code_of(const Answer& answer) {
        run_until([&] { return answer->has_value(); });
        if (!*answer) {
            return Errc::kTimeout;
        }
        return (*answer)->ok() ? std::nullopt : std::optional((*answer)->error().code);
    }
    // The next question, of whatever kind; null if there is none.
    std::shared_ptr<Asked> next() {
        if (!run_until([&] { return !asked_.empty(); })) {
            return nullptr;
        }
        std::shared_ptr<Asked> found = asked_.front();
        asked_.pop_front();
        return found;
    }
    // The next one of this kind, with the ones before it forgotten; null if there is none.
    std::shared_ptr<Asked> next(MessageType type) {
        std::shared_ptr<Asked> found = next();
        while (found && found->type != type) {
            found = next();
        }
        return found;
    }
    // What the member has committed; nothing if it has no chunk.
    std::optional<std::string> stored() {
        std::optional<std::string> out;
        bool done = false;
        node_.spawn(get(&process().store, &out, &done));
        EXPECT_TRUE(run_until([&] { return done; }));
        return out;
    }
    // The chunk as a list shows it.
    ChunkStore::Listed listed() {
        ChunkStore::Listed out;
        bool done = false;
        node_.spawn(list(&process().store, &out, &done));
        EXPECT_TRUE(run_until([&] { return done; }));
        return out;
    }
    // Compares with the other member, as resync does; `theirs` is what that one has.
    std::optional<ResyncPlan> compare(const pb::ChunkEntry& theirs) {
        Resync::Job job;
        job.chain = ChainId(1);
        job.version = version();
        job.from = TargetId(1);
        job.to = TargetId(2);
        std::optional<ResyncPlan> plan;
        node_.spawn(compare_page(&process().resync, job, &plan));
        auto question = next(MessageType::kListChunks);
        if (question) {
            pb::ListChunksReply reply;
            *reply.add_entries() = theirs;
            question->reply(reply);
        }
        run_until([&] { return plan.has_value(); });
        return plan;
    }
    Replicator& replicator() { return process().replicator; }
    const ClusterView& view() { return process().view; }

private:
    static constexpr const char* kOther = "other:1";

    struct MemberProcess final : sim::Process {
        sim::SimDisk disk;
        MemKv kv;
        ChunkStore store;
        ClusterView view;
        PeerPool peers;
        RpcChannel manager;
        Replicator replicator;
        Resync resync;
        RpcServer other;

        MemberProcess(sim::SimNode& node, Env& env, RpcHandler handler)
            : disk(env, node.disk("t", 1 * GiB)),
              kv(env, node.kv("t")),
              store(env, disk, kv, options()),
              view(NodeId(1), kIncarnation),
              peers(env),
              manager(env, kOther, ChannelKind::kControl),
              replicator(env, view, peers),
              resync(env, view, replicator, peers, manager),
              other(env, std::move(handler)) {
            replicator.add_target(store);
        }
        Task<Status> start() override {
            KDFS_CO_TRY(co_await store.open());
            co_return co_await other.listen(kOther);
        }
        Task<void> stop() override { co_return; }
        static StoreOptions options() {
            StoreOptions out = StoreWorld::default_options();
            out.target = TargetId(1);
            return out;
        }
    };
    static PeerIdentity identity() {
        PeerIdentity out;
        out.role = PeerRole::kStorage;
        out.node = NodeId(1);
        out.name = "member";
        return out;
    }
    sim::SimNode::Factory make() {
        return [this](sim::SimNode& node, Env& env) {
            return std::make_unique<MemberProcess>(node, env, [this](RpcRequest request) {
                return hold(std::move(request));
            });
        };
    }
    MemberProcess& process() { return static_cast<MemberProcess&>(node_.process()); }
    uint64_t version() { return view().map()->chain(ChainId(1))->version(); }

    static pb::ClusterMap map_of(uint64_t version, const Members& members) {
        pb::ClusterMap map;
        map.set_epoch(version);
        map.set_cluster_id("test");
        for (uint64_t id : {1, 2}) {
            pb::Node* node = map.add_nodes();
            node->set_id(id);
            node->set_address(id == 1 ? "member:1" : kOther);
            node->set_online(true);
            node->set_incarnation(id == 1 ? kIncarnation : 22);
            pb::Target* target = map.add_targets();
            target->set_id(id);
            target->set_node(id);
        }
        pb::Chain* chain = map.add_chains();
        chain->set_id(1);
        chain->set_version(version);
        for (const auto& [target, state] : members) {
            pb::ChainMember* member = chain->add_members();
            member->set_target(target);
            member->set_state(state);
        }
        return map;
    }
    void take(pb::ClusterMap map) {
        auto made = ClusterMap::make(std::move(map));
        ASSERT_TRUE(made.ok()) << made.error().to_string();
        process().replicator.before_map(view().map().get(), **made);
        process().view.set_map(*made);
    }
    RpcRequest request_of(MessageType type, Buffer body) {
        RpcRequest request;
        request.type = type;
        request.body = std::move(body);
        request.deadline = node_.env().now() + std::chrono::seconds(60);
        return request;
    }
    Answer start(Task<Result<RpcReply>> task) {
        auto out = std::make_shared<std::optional<Result<RpcReply>>>();
        node_.spawn(keep(std::move(task), out));
        return out;
    }
    Task<Result<RpcReply>> hold(RpcRequest request) {
        auto asked = std::make_shared<Asked>();
        asked->type = request.type;
        asked->body = request.body;
        asked_.push_back(asked);
        co_return co_await asked->answer.wait();
    }
    static Task<void> keep(Task<Result<RpcReply>> task, Answer out) {
        auto answer = co_await std::move(task);
        out->emplace(std::move(answer));
    }
    static Task<void> get(ChunkStore* store, std::optional<std::string>* out, bool* done) {
        auto found = co_await content_of(*store, key());
        EXPECT_TRUE(found.ok());
        *out = found.ok() ? *found : std::nullopt;
        *done = true;
    }
    static Task<void> list(ChunkStore* store, ChunkStore::Listed* out, bool* done) {
        ChunkStore::Range range;
        range.chain = ChainId(1);
        auto page = co_await store->list(range);
        EXPECT_TRUE(page.ok() && page->chunks.size() == 1);
        if (page.ok() && page->chunks.size() == 1) {
            *out = page->chunks[0];
        }
        *done = true;
    }
    static Task<void> compare_page(Resync* resync, Resync::Job job, std::optional<ResyncPlan>* to) {
        auto plan = co_await resync->compare_page(job, std::nullopt);
        EXPECT_TRUE(plan.ok());
        if (plan.ok()) {
            *to = std::move(*plan);
        }
    }

    sim::SimShared shared_;
    std::deque<std::shared_ptr<Asked>> asked_;
    sim::SimNode node_;
};

}  // namespace kdfs::storage
