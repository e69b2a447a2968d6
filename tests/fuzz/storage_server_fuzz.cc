// Two storage daemons with chains in several states, and any requests from anybody who has the key.
//   per request: u8 type, u8 mode, u16 payload in units of 64 bytes, part body;
//   mode: 1 to the second daemon, 2 leave the chain's version as it is, 4 and the checksums too,
//   8 do not wait

#include "kdfs/base/checksum.h"
#include "kdfs/proto/chunk.pb.h"
#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/wire.h"
#include "storage/server.h"
#include "tests/fuzz/fuzz_world.h"

#include <algorithm>
#include <array>
#include <map>

namespace kdfs::fuzz {
namespace {

constexpr const char* kManager = "manager:1";
constexpr uint64_t kChainVersion = 3;
constexpr size_t kRequestsMax = 48;
constexpr uint8_t kSecond = 1;
constexpr uint8_t kOwnVersion = 2;
constexpr uint8_t kOwnSums = 4;
constexpr uint8_t kNoWait = 8;

class StorageProcess final : public sim::Process {
public:
    StorageProcess(sim::SimNode& node, Env& env, uint64_t id)
        : disk_(env, node.disk("t", GiB)),
          kv_(env, node.kv("t")),
          server_(env, targets(id), options(id)) {}
    Task<Status> start() override { return server_.start(); }
    Task<void> stop() override { return server_.stop(); }

private:
    std::vector<storage::TargetOptions> targets(uint64_t id) {
        storage::TargetOptions target;
        target.disk = &disk_;
        target.kv = &kv_;
        target.store.target = TargetId(id);
        target.store.slab_bytes = MiB;
        target.store.capacity_bytes = 8 * MiB;
        return {target};
    }
    static storage::ServerOptions options(uint64_t id) {
        storage::ServerOptions out;
        out.node = NodeId(id);
        out.name = "storage" + std::to_string(id);
        out.manager = kManager;
        out.listen = out.name + ":1";
        return out;
    }
    sim::SimDisk disk_;
    MemKv kv_;
    storage::Server server_;
};

void add_chain(pb::ClusterMap& map, uint64_t id, pb::MemberState first, pb::MemberState second) {
    pb::Chain* chain = map.add_chains();
    chain->set_id(id);
    chain->set_version(kChainVersion);
    pb::ChainMember* member = chain->add_members();
    member->set_target(1);
    member->set_state(first);
    member = chain->add_members();
    member->set_target(2);
    member->set_state(second);
}

// Gives everybody the same map, which never changes once both daemons are in it.
class Manager {
public:
    Task<Result<RpcReply>> answer(RpcRequest request) {
        if (request.type != MessageType::kHeartbeat) {
            co_return RpcReply(Buffer());
        }
        auto beat = decode<pb::HeartbeatRequest>(request.body);
        if (!incarnations_.contains(beat->node())) {
            incarnations_[beat->node()] = beat->incarnation();
            rebuild();
        }
        pb::HeartbeatReply reply;
        *reply.mutable_map() = map_;
        co_return RpcReply(encode(reply));
    }
    bool complete() const { return incarnations_.size() == 2; }

private:
    void rebuild() {
        map_.Clear();
        map_.set_epoch(incarnations_.size());
        map_.set_cluster_id("fuzz");
        map_.set_node_lease_ms(4000);
        map_.set_session_floor(3);
        map_.add_fenced_sessions(9);
        for (const auto& [id, incarnation] : incarnations_) {
            pb::Node* node = map_.add_nodes();
            node->set_id(id);
            node->set_address("storage" + std::to_string(id) + ":1");
            node->set_online(true);
            node->set_incarnation(incarnation);
            pb::Target* target = map_.add_targets();
            target->set_id(id);
            target->set_node(id);
        }
        if (complete()) {
            add_chain(map_, 1, pb::MEMBER_SERVING, pb::MEMBER_SERVING);
            add_chain(map_, 2, pb::MEMBER_SERVING, pb::MEMBER_OFFLINE);
            add_chain(map_, 3, pb::MEMBER_SERVING, pb::MEMBER_SYNCING);
            add_chain(map_, 4, pb::MEMBER_LAST_SERVING, pb::MEMBER_WAITING);
        }
    }
    std::map<uint64_t, uint64_t> incarnations_;
    pb::ClusterMap map_;
};

constexpr std::array kTypes = {MessageType::kWrite,
                               MessageType::kRead,
                               MessageType::kSync,
                               MessageType::kRemoveData,
                               MessageType::kListChunks,
                               MessageType::kCloneData,
                               MessageType::kMeta};

Buffer payload_of(size_t bytes, uint8_t tint) {
    Buffer out = Buffer::allocate(bytes);
    std::fill_n(out.mutable_data(), bytes, std::byte{tint});
    return out;
}

std::string sums_of(const Buffer& payload, uint64_t offset) {
    std::string out;
    for (size_t at = 0; at < payload.size();) {
        size_t size =
            std::min<size_t>(payload.size() - at, kBlockBytes - (offset + at) % kBlockBytes);
        Writer(out).u64(checksum(payload.slice(at, size).span()));
        at += size;
    }
    return out;
}

template <class Message>
Buffer versioned(const Buffer& body) {
    auto message = decode<Message>(body);
    if (!message.ok()) {
        return body;
    }
    message->set_chain_version(kChainVersion);
    return encode(*message);
}

Buffer mended(MessageType type, uint8_t mode, const Buffer& body, const Buffer& payload) {
    if ((mode & kOwnVersion) != 0) {
        return body;
    }
    switch (type) {
        case MessageType::kWrite: {
            auto message = decode<pb::WriteRequest>(body);
            if (!message.ok()) {
                return body;
            }
            message->set_chain_version(kChainVersion);
            if ((mode & kOwnSums) == 0 &&
                payload.size() + message->offset() <= 2 * kPieceBytesMax) {
                message->set_checksums(sums_of(payload, message->offset()));
            }
            return encode(*message);
        }
        case MessageType::kRead:
            return versioned<pb::ReadRequest>(body);
        case MessageType::kRemoveData:
            return versioned<pb::RemoveDataRequest>(body);
        case MessageType::kListChunks:
            return versioned<pb::ListChunksRequest>(body);
        case MessageType::kCloneData:
            return versioned<pb::CloneDataRequest>(body);
        default:
            return body;
    }
}

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    fuzz::World world;
    fuzz::Manager manager;
    sim::SimNode& peer = world.add("peer", 0, [&manager](sim::SimNode&, Env& env) {
        RpcHandler handler = [&manager](RpcRequest request) {
            return manager.answer(std::move(request));
        };
        return std::make_unique<fuzz::Peer>(env, fuzz::kManager, std::move(handler));
    });
    peer.boot();
    std::vector<sim::SimNode*> daemons;
    for (uint64_t id = 1; id <= 2; ++id) {
        daemons.push_back(
            &world.add("storage" + std::to_string(id), id, [id](sim::SimNode& node, Env& env) {
                return std::make_unique<fuzz::StorageProcess>(node, env, id);
            }));
        daemons.back()->boot();
    }
    fuzz::require(world.run_until([&] { return manager.complete(); }, std::chrono::seconds(10)),
                  "the daemons start");
    world.run_for(std::chrono::seconds(1));
    auto& caller = static_cast<fuzz::Peer&>(peer.process());
    for (size_t i = 0; i < fuzz::kRequestsMax && !input.empty(); ++i) {
        MessageType type = fuzz::kTypes[input.u8() % fuzz::kTypes.size()];
        uint8_t mode = input.u8();
        size_t bytes = std::min<size_t>(size_t{input.u16()} * 64, kPayloadBytesMax);
        Buffer payload =
            fuzz::payload_of(type == MessageType::kWrite ? bytes : 0, static_cast<uint8_t>(i + 1));
        Buffer body = fuzz::mended(type, mode, Buffer::copy_of(input.part()), payload);
        RpcCall call(type,
                     std::move(body),
                     BufferChain(std::move(payload)),
                     caller.env().now() + std::chrono::seconds(5));
        std::string address = "storage" + std::to_string(1 + (mode & fuzz::kSecond)) + ":1";
        if ((mode & fuzz::kNoWait) != 0) {
            peer.spawn(caller.call(address, std::move(call)));
            continue;
        }
        bool ended =
            world.run_on(peer, caller.call(address, std::move(call)), std::chrono::seconds(60));
        fuzz::require(ended, "every call ends");
    }
    world.run_for(std::chrono::seconds(5));
    for (sim::SimNode* daemon : daemons) {
        fuzz::require(daemon->started(), "a daemon goes on");
    }
    return 0;
}
