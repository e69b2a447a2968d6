#include "tests/sim/frame_text.h"

#include "kdfs/proto/chunk.pb.h"
#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/meta.pb.h"
#include "kdfs/proto/wire.h"

namespace kdfs::sim {
namespace {

constexpr size_t kTextMax = 400;

template <class Message>
std::string text_of(const Buffer& body) {
    auto message = decode<Message>(body);
    if (!message.ok()) {
        return "malformed";
    }
    std::string text = message->ShortDebugString();
    return text.size() > kTextMax ? text.substr(0, kTextMax) + "..." : text;
}

template <class Request, class Reply>
std::string either(const Frame& frame, const std::string& name) {
    if (frame.header.is_response()) {
        return name + " answer {" + text_of<Reply>(frame.body) + "}";
    }
    return name + " {" + text_of<Request>(frame.body) + "}";
}

std::string body_text(const Frame& frame) {
    if (frame.header.is_error()) {
        return "error {" + text_of<pb::ErrorBody>(frame.body) + "}";
    }
    switch (static_cast<MessageType>(frame.header.type)) {
        case MessageType::kMeta:
            return either<pb::MetaRequest, pb::MetaReply>(frame, "meta");
        case MessageType::kRecall:
            return either<pb::RecallRequest, pb::RecallReply>(frame, "recall");
        case MessageType::kOpenSession:
            return either<pb::OpenSessionRequest, pb::OpenSessionReply>(frame, "open session");
        case MessageType::kRenew:
            return either<pb::RenewRequest, pb::RenewReply>(frame, "renew");
        case MessageType::kWrite:
            return either<pb::WriteRequest, pb::WriteReply>(frame, "write");
        case MessageType::kRead:
            return either<pb::ReadRequest, pb::ReadReply>(frame, "read");
        case MessageType::kSync:
            return either<pb::SyncRequest, pb::SyncReply>(frame, "sync");
        case MessageType::kRemoveData:
            return either<pb::RemoveDataRequest, pb::RemoveDataReply>(frame, "remove data");
        case MessageType::kListChunks:
            return either<pb::ListChunksRequest, pb::ListChunksReply>(frame, "list chunks");
        case MessageType::kHeartbeat:
            return either<pb::HeartbeatRequest, pb::HeartbeatReply>(frame, "heartbeat");
        case MessageType::kSyncDone:
            return either<pb::SyncDoneRequest, pb::SyncDoneReply>(frame, "sync done");
        default:
            return "type " + std::to_string(frame.header.type);
    }
}

}  // namespace

std::string frame_text(const Frame& frame) {
    return "#" + std::to_string(frame.header.request_id) + " " + body_text(frame);
}

}  // namespace kdfs::sim
