// A metadata server in a small cluster, and any requests from anybody who has the key. Whatever
// they are, it answers each, and its namespace stays sound.
//   per request: u8 type, u8 mode, part body; mode: 1 the second session instead of the first,
//   2 leave session and sequence number as they are, 4 no sequence number, 8 do not wait

#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/meta.pb.h"
#include "kdfs/proto/wire.h"
#include "mds/fsck.h"
#include "mds/server.h"
#include "tests/fuzz/fuzz_world.h"

#include <array>
#include <iostream>

namespace kdfs::fuzz {
namespace {

constexpr const char* kMds = "mds:1";
constexpr size_t kRequestsMax = 64;
constexpr uint8_t kSecond = 1;
constexpr uint8_t kAsItIs = 2;
constexpr uint8_t kNoSequence = 4;
constexpr uint8_t kNoWait = 8;

class MdsProcess final : public sim::Process {
public:
    MdsProcess(sim::SimNode& node, Env& env)
        : store_(env, node.kv("meta")), server_(env, store_, options()) {}
    Task<Status> start() override { return server_.start(); }
    Task<void> stop() override { co_return; }

private:
    static mds::Options options() {
        mds::Options out;
        out.address = kMds;
        return out;
    }
    MemKv store_;
    mds::Server server_;
};

// Gives leases back at once, and has no chunks.
Task<Result<RpcReply>> answer(RpcRequest request) {
    if (request.type == MessageType::kRecall) {
        auto recall = decode<pb::RecallRequest>(request.body);
        pb::RecallReply reply;
        reply.mutable_released()->set_ino(recall->ino());
        reply.mutable_released()->set_keep(recall->keep());
        reply.mutable_released()->set_lease_seq(recall->lease_seq());
        co_return RpcReply(encode(reply));
    }
    // An empty body is any empty message: ListChunksReply, RemoveDataReply, WriteReply.
    co_return RpcReply(Buffer());
}

constexpr std::array kTypes = {MessageType::kMeta,
                               MessageType::kRenew,
                               MessageType::kOpenSession,
                               MessageType::kCloseSession,
                               MessageType::kHeartbeat,
                               MessageType::kSyncDone,
                               MessageType::kGetMap,
                               MessageType::kScanMeta,
                               MessageType::kStatus,
                               MessageType::kWrite};

class MetaServerWorld {
public:
    MetaServerWorld() {
        mds_ = &world_.add("mds", 0, [](sim::SimNode& node, Env& env) {
            return std::make_unique<MdsProcess>(node, env);
        });
        peer_ = &world_.add("peer", 1, [](sim::SimNode&, Env& env) {
            return std::make_unique<Peer>(env, "peer:1", answer);
        });
        mds_->boot();
        peer_->boot();
        require(world_.run_until([this] { return mds_->started(); }, std::chrono::seconds(10)),
                "the server starts");
        beat();
        for (uint64_t& session : sessions_) {
            pb::OpenSessionRequest request;
            request.set_name("fuzz");
            auto reply = call(MessageType::kOpenSession, encode(request));
            require(reply && reply->ok(), "a session opens");
            session = decode<pb::OpenSessionReply>((*reply)->body)->session();
        }
    }
    Peer& peer() { return static_cast<Peer&>(peer_->process()); }

    void take(Input& input) {
        MessageType type = kTypes[input.u8() % kTypes.size()];
        uint8_t mode = input.u8();
        Buffer body = Buffer::copy_of(input.part());
        if (type == MessageType::kMeta && (mode & kAsItIs) == 0) {
            auto request = decode<pb::MetaRequest>(body);
            if (!request.ok()) {
                return;
            }
            request->set_session(sessions_[mode & kSecond]);
            request->set_seq((mode & kNoSequence) != 0 ? 0 : ++sequence_);
            body = encode(*request);
        }
        if ((mode & kNoWait) != 0) {
            peer_->spawn(peer().call(kMds, make(type, std::move(body))));
            return;
        }
        auto reply = call(type, std::move(body));
        require(reply != nullptr, "every request is answered");
    }
    void finish() {
        beat();
        world_.run_for(std::chrono::seconds(5));
        require(mds_->started(), "the server serves");
        // What was asked for without waiting may have orphans and the like under way.
        mds::NamespaceCheck check;
        for (const auto& [key, value] : mds_->kv("meta").map()) {
            check.add(key, value);
        }
        mds::NamespaceReport report = check.finish();
        for (const std::string& problem : report.problems) {
            std::cerr << problem << std::endl;
        }
        require(report.clean(), "the namespace is sound");
    }

private:
    RpcCall make(MessageType type, Buffer body) {
        return {type, std::move(body), peer().env().now() + std::chrono::seconds(20)};
    }
    std::shared_ptr<Result<RpcReply>> call(MessageType type, Buffer body) {
        bool ended = world_.run_on(*peer_,
                                   peer().call(kMds, make(type, std::move(body))),
                                   std::chrono::seconds(60));
        return ended ? peer().last() : nullptr;
    }
    void beat() {
        pb::HeartbeatRequest request;
        request.set_node(1);
        request.set_incarnation(5);
        request.set_name("n1");
        request.set_address("peer:1");
        request.set_map_epoch(UINT64_MAX);
        request.add_targets()->set_target(1);
        (void)call(MessageType::kHeartbeat, encode(request));
    }

    World world_;
    sim::SimNode* mds_ = nullptr;
    sim::SimNode* peer_ = nullptr;
    std::array<uint64_t, 2> sessions_{};
    uint64_t sequence_ = 0;
};

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs::fuzz;
    Input input(view_of(data, size));
    MetaServerWorld world;
    for (size_t i = 0; i < kRequestsMax && !input.empty(); ++i) {
        world.take(input);
    }
    world.finish();
    return 0;
}
