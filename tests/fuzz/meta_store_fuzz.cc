// A metadata server that starts on a store with any records: it serves, or says why not.
//   parts: key, value, key, value, ...

#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/meta.pb.h"
#include "kdfs/proto/wire.h"
#include "mds/server.h"
#include "tests/fuzz/fuzz_world.h"

namespace kdfs::fuzz {
namespace {

constexpr const char* kMds = "mds:1";

class MdsProcess final : public sim::Process {
public:
    MdsProcess(sim::SimNode& node, Env& env)
        : store_(env, node.kv("meta")), server_(env, store_, options()) {}
    Task<Status> start() override { return server_.start(); }
    Task<void> stop() override { (void)co_await server_.stop(); }

private:
    static mds::Options options() {
        mds::Options out;
        out.address = kMds;
        return out;
    }
    MemKv store_;
    mds::Server server_;
};

Task<Result<RpcReply>> answer(RpcRequest) { co_return RpcReply(Buffer()); }

pb::MetaRequest listing(uint64_t session) {
    pb::MetaRequest request;
    request.set_session(session);
    request.mutable_readdir()->set_ino(kRootInode.value);
    request.mutable_readdir()->set_entries_max(100);
    request.mutable_readdir()->set_attrs(true);
    return request;
}

pb::MetaRequest creation(uint64_t session) {
    pb::MetaRequest request;
    request.set_session(session);
    request.set_seq(1);
    request.mutable_create()->set_parent(kRootInode.value);
    request.mutable_create()->set_name("new");
    request.mutable_create()->set_mode(040755);
    return request;
}

// Waits at most as long as the server may.
Task<void> ask(Peer* peer, MessageType type, Buffer body) {
    RpcCall call(type, std::move(body), peer->env().now() + std::chrono::seconds(30));
    co_await peer->call(kMds, std::move(call));
}

Task<void> use(Peer* peer) {
    co_await ask(peer, MessageType::kOpenSession, Buffer());
    uint64_t session = 1;
    if (peer->last() && peer->last()->ok()) {
        auto opened = decode<pb::OpenSessionReply>((*peer->last())->body);
        session = opened->session();
    }
    Buffer list = encode(listing(session));
    co_await ask(peer, MessageType::kMeta, std::move(list));
    Buffer create = encode(creation(session));
    co_await ask(peer, MessageType::kMeta, std::move(create));
    co_await ask(peer, MessageType::kStatus, Buffer());
    pb::ScanMetaRequest scan;
    scan.set_entries_max(100);
    co_await ask(peer, MessageType::kScanMeta, encode(scan));
}

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    fuzz::World world;
    sim::SimNode& mds = world.add("mds", 0, [](sim::SimNode& node, Env& env) {
        return std::make_unique<fuzz::MdsProcess>(node, env);
    });
    KvBatch batch;
    while (!input.empty()) {
        std::string key(input.part());
        batch.put(std::move(key), std::string(input.part()));
    }
    MemKvMedium& medium = mds.kv("meta");
    medium.apply(batch);
    medium.mark_synced(medium.applied());
    mds.boot();
    bool ended = world.run_until([&] { return mds.started() || !mds.failure().ok(); },
                                 std::chrono::seconds(60));
    fuzz::require(ended, "the start ends");
    if (!mds.started()) {
        fuzz::require(!mds.failure().error().detail.empty(), "a refusal says why");
        return 0;
    }
    sim::SimNode& peer = world.add("peer", 1, [](sim::SimNode&, Env& env) {
        return std::make_unique<fuzz::Peer>(env, "peer:1", fuzz::answer);
    });
    peer.boot();
    world.run_for(std::chrono::seconds(1));
    bool answered = world.run_on(peer,
                                 fuzz::use(&static_cast<fuzz::Peer&>(peer.process())),
                                 std::chrono::seconds(300));
    fuzz::require(answered, "every request is answered");
    return 0;
}
