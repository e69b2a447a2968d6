#include "tools/inspect.h"

#include "kdfs/proto/chunk.pb.h"
#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/meta.pb.h"
#include "kdfs/rt/frame.h"
#include "mds/schema.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <memory>

namespace kdfs::tools {

namespace {

constexpr size_t kBytesShown = 256;

using Message = google::protobuf::Message;

struct FrameKind {
    MessageType type;
    const char* name;
    const Message* request;
    const Message* reply;
};

template <class Request, class Reply>
FrameKind kind(MessageType type, const char* name) {
    return {type, name, &Request::default_instance(), &Reply::default_instance()};
}

const std::vector<FrameKind>& frame_kinds() {
    static const std::vector<FrameKind> kKinds = {
        kind<pb::HeartbeatRequest, pb::HeartbeatReply>(MessageType::kHeartbeat, "Heartbeat"),
        kind<pb::SyncDoneRequest, pb::SyncDoneReply>(MessageType::kSyncDone, "SyncDone"),
        kind<pb::GetMapRequest, pb::GetMapReply>(MessageType::kGetMap, "GetMap"),
        kind<pb::MapUpdate, pb::MapUpdate>(MessageType::kMapUpdate, "MapUpdate"),
        kind<pb::StatusRequest, pb::StatusReply>(MessageType::kStatus, "Status"),
        kind<pb::ScrubRequest, pb::ScrubReply>(MessageType::kScrub, "Scrub"),
        kind<pb::OpenSessionRequest, pb::OpenSessionReply>(MessageType::kOpenSession,
                                                           "OpenSession"),
        kind<pb::RenewRequest, pb::RenewReply>(MessageType::kRenew, "Renew"),
        kind<pb::CloseSessionRequest, pb::CloseSessionReply>(MessageType::kCloseSession,
                                                             "CloseSession"),
        kind<pb::MetaRequest, pb::MetaReply>(MessageType::kMeta, "Meta"),
        kind<pb::RecallRequest, pb::RecallReply>(MessageType::kRecall, "Recall"),
        kind<pb::ScanMetaRequest, pb::ScanMetaReply>(MessageType::kScanMeta, "ScanMeta"),
        kind<pb::EndSessionRequest, pb::EndSessionReply>(MessageType::kEndSession, "EndSession"),
        kind<pb::WriteRequest, pb::WriteReply>(MessageType::kWrite, "Write"),
        kind<pb::ReadRequest, pb::ReadReply>(MessageType::kRead, "Read"),
        kind<pb::SyncRequest, pb::SyncReply>(MessageType::kSync, "Sync"),
        kind<pb::RemoveDataRequest, pb::RemoveDataReply>(MessageType::kRemoveData, "RemoveData"),
        kind<pb::ListChunksRequest, pb::ListChunksReply>(MessageType::kListChunks, "ListChunks"),
        kind<pb::CloneDataRequest, pb::CloneDataReply>(MessageType::kCloneData, "CloneData")};
    return kKinds;
}

const FrameKind* find_kind(uint16_t type) {
    for (const FrameKind& candidate : frame_kinds()) {
        if (static_cast<uint16_t>(candidate.type) == type) {
            return &candidate;
        }
    }
    return nullptr;
}

std::string indented(const std::string& text) {
    std::string out = "  ";
    for (char c : text) {
        out += c;
        out += c == '\n' ? "  " : "";
    }
    while (!out.empty() && (out.back() == ' ' || out.back() == '\n')) {
        out.pop_back();
    }
    return out.empty() ? out : out + "\n";
}

std::string message_text(const Message& message) { return indented(message.Utf8DebugString()); }

std::string header_text(const FrameHeader& header, const FrameKind* known) {
    std::string text = "frame " + std::string(known == nullptr ? "of unknown type" : known->name) +
                       " (type " + std::to_string(header.type) + ")";
    text += header.is_response() ? ", answer" : ", request";
    text += header.is_error() ? ", error" : "";
    text += "\n  request id " + std::to_string(header.request_id) + ", trace id " +
            std::to_string(header.trace_id) + ", job tag " + std::to_string(header.job_tag);
    text += "\n  body " + std::to_string(header.body_bytes) + " bytes, payload " +
            std::to_string(header.payload_bytes) + " bytes";
    if (header.deadline_ms != 0) {
        text += ", " + std::to_string(header.deadline_ms) + " ms to its deadline";
    }
    return text + "\n";
}

Result<std::string> body_text(const FrameHeader& header,
                              const FrameKind* known,
                              std::string_view body) {
    std::unique_ptr<Message> message;
    if (header.is_error()) {
        message = std::make_unique<pb::ErrorBody>();
    } else if (known != nullptr) {
        message.reset((header.is_response() ? known->reply : known->request)->New());
    } else {
        return indented(bytes_text(body, kBytesShown));
    }
    if (!message->ParseFromArray(body.data(), static_cast<int>(body.size()))) {
        return Error(Errc::kMalformed, "the body is no " + message->GetTypeName());
    }
    return message_text(*message);
}

std::string dentry_text(const mds::Dentry& dentry) {
    return "inode " + std::to_string(dentry.ino.value) + ", type bits " +
           std::to_string(dentry.mode);
}

std::string inode_text(const mds::Inode& inode) {
    pb::Attr attr;
    mds::fill_attr(inode, attr);
    std::string text = attr.Utf8DebugString();
    std::string policy = inode.policy.Utf8DebugString();
    return policy.empty() ? text : text + "policy {\n" + indented(policy) + "}";
}

std::string counters_text(const mds::Counters& counters) {
    return "next id " + std::to_string(counters.next_id) + ", inodes " +
           std::to_string(counters.counts.inodes) + ", orphans " +
           std::to_string(counters.counts.orphans) + ", to be collected " +
           std::to_string(counters.counts.gc_queued) + ", trims " +
           std::to_string(counters.counts.trims);
}

std::string dead_text(const mds::DeadData& dead) {
    return "data " + std::to_string(dead.data.value) + ", " + std::to_string(dead.size_bytes) +
           " bytes, layout { " + dead.layout.ShortDebugString() + " }";
}

std::string trim_text(const mds::Trim& trim) {
    return "inode " + std::to_string(trim.ino.value) + ", data " + std::to_string(trim.data.value) +
           ", from " + std::to_string(trim.from_bytes) + " to " + std::to_string(trim.beyond_bytes);
}

// Applies `text` to what a decoder gave.
template <class T, class Text>
Result<std::string> shown(Result<T> decoded, Text text) {
    if (!decoded.ok()) {
        return decoded.error();
    }
    return text(*decoded);
}

Result<std::string> manager_text(std::string_view key, std::string_view value) {
    pb::ClusterMap map;
    // Behind the format byte.
    bool is_map = key.substr(1) == "map" && !value.empty() &&
                  map.ParseFromArray(value.data() + 1, static_cast<int>(value.size() - 1));
    return is_map ? map.Utf8DebugString() : bytes_text(value, kBytesShown);
}

Result<std::string> meta_value_text(std::string_view key, std::string_view value) {
    switch (static_cast<mds::Table>(key[0])) {
        case mds::Table::kCounters:
            return shown(mds::decode_counters(key, value), counters_text);
        case mds::Table::kDentry:
            return shown(mds::decode_dentry(key, value), dentry_text);
        case mds::Table::kDeadData:
            return shown(mds::decode_dead_data(key, value), dead_text);
        case mds::Table::kInode:
            return shown(mds::decode_inode(key, value), inode_text);
        case mds::Table::kTrim:
            return shown(mds::decode_trim(key, value), trim_text);
        case mds::Table::kXattr:
            return shown(mds::decode_xattr(key, value),
                         [](const std::string& x) { return bytes_text(x, kBytesShown); });
        case mds::Table::kReply:
            return shown(mds::decode_reply(key, value),
                         [](const pb::MetaReply& r) { return r.Utf8DebugString(); });
        case mds::Table::kManager:
            return manager_text(key, value);
        case mds::Table::kOrphan:
        case mds::Table::kSession:
            return bytes_text(value, kBytesShown);
    }
    return Error(Errc::kCorrupt, "no table has keys that begin with " + bytes_text(key, 1));
}

}  // namespace

Result<std::string> meta_record_text(std::string_view key, std::string_view value) {
    if (key.empty()) {
        return Error(Errc::kCorrupt, "the key is empty");
    }
    KDFS_TRY_ASSIGN(std::string text, meta_value_text(key, value));
    return mds::describe_key(key) + "\n" + indented(text);
}

Result<std::string> frame_text(std::string_view bytes, size_t& used) {
    used = 0;
    FrameBytes raw{};
    if (bytes.size() < raw.size()) {
        return Error(Errc::kMalformed,
                     "a frame's header has 64 bytes, here are " + std::to_string(bytes.size()));
    }
    std::memcpy(raw.data(), bytes.data(), raw.size());
    KDFS_TRY_ASSIGN(FrameHeader header, decode_header(raw));
    used = raw.size() + header.body_bytes + header.payload_bytes;
    const FrameKind* known = find_kind(header.type);
    std::string text = header_text(header, known);
    text += check_plain_seal(raw).ok() ? "" : "  sealed with the connection's key\n";
    if (bytes.size() < raw.size() + header.body_bytes) {
        return Error(Errc::kMalformed,
                     text + "  the body is cut off after " +
                         std::to_string(bytes.size() - raw.size()) + " bytes");
    }
    std::string_view body = bytes.substr(raw.size(), header.body_bytes);
    Buffer buffer = Buffer::copy_of(body);
    KDFS_TRY(check_body(header, buffer));
    KDFS_TRY_ASSIGN(std::string shown_body, body_text(header, known, body));
    return text + shown_body;
}

Result<std::string> parse_hex(std::string_view text) {
    std::string out;
    int high = -1;
    for (size_t i = 0; i < text.size(); ++i) {
        char c = text[i];
        if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
            continue;
        }
        static constexpr std::string_view kDigits = "0123456789abcdef";
        size_t digit = kDigits.find(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
        if (digit == std::string_view::npos) {
            return Error(Errc::kMalformed,
                         "character " + std::to_string(i + 1) + " is no hexadecimal digit");
        }
        if (high < 0) {
            high = static_cast<int>(digit);
        } else {
            out += static_cast<char>(high * 16 + static_cast<int>(digit));
            high = -1;
        }
    }
    if (high >= 0) {
        return Error(Errc::kMalformed, "the last byte has only one hexadecimal digit");
    }
    return out;
}

std::string bytes_text(std::string_view bytes, size_t bytes_max) {
    std::string hex;
    std::string plain;
    for (char c : bytes.substr(0, bytes_max)) {
        std::array<char, 4> two{};
        std::snprintf(two.data(), two.size(), "%02x ", static_cast<unsigned char>(c));
        hex += two.data();
        plain += c >= ' ' && c <= '~' ? c : '.';
    }
    std::string rest = bytes.size() > bytes_max
                           ? " and " + std::to_string(bytes.size() - bytes_max) + " bytes more"
                           : "";
    return hex + "|" + plain + "|" + rest;
}

}  // namespace kdfs::tools
