// Message bodies, and what their receivers conclude from them before they act.
//   u8 which message, part body, rest: payload

#include "kdfs/proto/chunk.pb.h"
#include "kdfs/proto/cluster_map.h"
#include "kdfs/proto/layout.h"
#include "kdfs/proto/member_state.h"
#include "kdfs/proto/meta.pb.h"
#include "kdfs/proto/wire.h"
#include "mds/layout_choice.h"
#include "mds/membership.h"
#include "storage/chunk_messages.h"
#include "tests/fuzz/fuzz_input.h"

#include <algorithm>
#include <iterator>

namespace kdfs::fuzz {
namespace {

template <class Message>
void decode_only(const Buffer& body) {
    auto message = decode<Message>(body);
    if (message.ok()) {
        require(decode<Message>(encode(*message)).ok(), "a message can be said again");
    }
}

void take_layout(const pb::Layout& layout, const pb::ChainTable& table) {
    if (!check_layout(layout).ok()) {
        return;
    }
    constexpr uint64_t kLength = 3 * MiB;
    uint64_t offset = layout.seed() % kFileBytesMax;
    uint64_t seen = 0;
    for (const PieceRange& piece : split_range(layout, table, DataId(1), offset, kLength)) {
        require(piece.file_offset == offset + seen && piece.length > 0 &&
                    piece.piece_offset + piece.length <= piece_bytes(layout),
                "pieces cover the range");
        seen += piece.length;
    }
    require(seen == kLength, "pieces cover the whole range");
    auto chains = chains_of_file(layout, table, kFileBytesMax);
    require(chains.size() <= layout.width(), "a file has at most its width of chains");
}

void take_map(const Buffer& body) {
    auto message = decode<pb::ClusterMap>(body);
    if (!message.ok()) {
        return;
    }
    auto map = ClusterMap::make(*message);
    if (!map.ok()) {
        return;
    }
    for (const pb::Chain& chain : (*map)->proto().chains()) {
        auto path = write_path(chain);
        auto serving = serving_members(chain);
        require(path.size() >= serving.size(), "who serves takes writes");
        require(serving.empty() == !head_of(chain), "a head is there if somebody serves");
        for (const pb::ChainMember& member : chain.members()) {
            TargetId target(member.target());
            require((*map)->node_of(target) != nullptr, "a member is on a node");
            (void)successor_of(chain, target);
            for (auto event :
                 {MemberEvent::kTargetDown, MemberEvent::kTargetUp, MemberEvent::kSyncDone}) {
                pb::Chain next = apply_event(chain, target, event);
                require(next.members_size() == chain.members_size(), "nobody gets lost");
                require(!chain_is_sound(chain) || chain_is_sound(next), "a chain stays sound");
            }
        }
    }
    for (const pb::ChainTable& table : (*map)->proto().tables()) {
        pb::Layout layout;
        layout.set_chunk_bytes(kChunkBytesMin);
        layout.set_width(1 + table.replicas() % kWidthMax);
        layout.set_replicas(1);
        layout.set_seed(table.id());
        take_layout(layout, table);
    }
    pb::Policy policy;
    (void)mds::choose_layout(**map, policy, "n1", (*map)->epoch().value);
}

void take_heartbeats(const Buffer& body, const Buffer& other) {
    pb::ClusterMap first;
    first.set_epoch(1);
    mds::Membership membership(mds::Membership::Options(), first, TimePoint());
    for (const Buffer& one : {body, other, body}) {
        auto message = decode<pb::HeartbeatRequest>(one);
        if (!message.ok()) {
            continue;
        }
        (void)membership.heartbeat(*message, 1, TimePoint());
        require(ClusterMap::make(membership.map()).ok(), "the manager's map is always sound");
        require(membership.map().ByteSizeLong() <= kBodyBytesMax, "the map fits into a frame");
    }
    (void)membership.tick(TimePoint() + std::chrono::seconds(60));
    require(ClusterMap::make(membership.map()).ok(), "the manager's map is always sound");
}

void take_write(const Buffer& body, const Buffer& payload) {
    auto message = decode<pb::WriteRequest>(body);
    if (!message.ok()) {
        return;
    }
    BufferChain data(payload);
    auto write = storage::check_write(*message, data);
    if (write.ok()) {
        require(write->offset + write->data.size() <= kPieceBytesMax, "a write lies in its piece");
        require(storage::check_sums(write->offset, data, write->sums).ok(),
                "checksums were checked");
    }
    (void)storage::unpack_sums(message->checksums(), message->offset(), payload.size());
}

void take_layout_message(const Buffer& body) {
    auto layout = decode<pb::Layout>(body);
    if (layout.ok()) {
        pb::ChainTable table;
        for (uint64_t chain = 1; chain <= 7; ++chain) {
            table.add_chains(chain);
        }
        take_layout(*layout, table);
    }
}

using Decode = void (*)(const Buffer&);
constexpr Decode kOthers[] = {
    decode_only<pb::HeartbeatReply>,    decode_only<pb::SyncDoneRequest>,
    decode_only<pb::GetMapRequest>,     decode_only<pb::MapUpdate>,
    decode_only<pb::StatusReply>,       decode_only<pb::OpenSessionRequest>,
    decode_only<pb::OpenSessionReply>,  decode_only<pb::RenewRequest>,
    decode_only<pb::RenewReply>,        decode_only<pb::MetaRequest>,
    decode_only<pb::MetaReply>,         decode_only<pb::RecallRequest>,
    decode_only<pb::RecallReply>,       decode_only<pb::ScanMetaReply>,
    decode_only<pb::ReadRequest>,       decode_only<pb::ReadReply>,
    decode_only<pb::SyncRequest>,       decode_only<pb::RemoveDataRequest>,
    decode_only<pb::ListChunksRequest>, decode_only<pb::ListChunksReply>,
    decode_only<pb::CloneDataRequest>,  decode_only<pb::ErrorBody>};

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    uint8_t which = input.u8();
    Buffer body = Buffer::copy_of(input.part());
    Buffer payload = Buffer::copy_of(input.rest());
    switch (which) {
        case 0:
            fuzz::take_map(body);
            break;
        case 1:
            fuzz::take_heartbeats(body, payload);
            break;
        case 2:
            fuzz::take_write(body, payload);
            break;
        case 3:
            fuzz::take_layout_message(body);
            break;
        default:
            fuzz::kOthers[which % std::size(fuzz::kOthers)](body);
    }
    return 0;
}
