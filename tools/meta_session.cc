#include "tools/meta_session.h"

#include <unistd.h>

#include <chrono>
#include <thread>

namespace kdfs::tools {

namespace {

// Longer than a restarted metadata server waits for the sessions it knows.
constexpr auto kRetryFor = std::chrono::seconds(20);
constexpr auto kRetryDelay = std::chrono::milliseconds(50);

}  // namespace

Result<std::unique_ptr<MetaSession>> MetaSession::open(ClusterLink& link, const std::string& mds) {
    std::unique_ptr<MetaSession> session(new MetaSession(link, mds));
    pb::OpenSessionRequest request;
    request.set_name("kdfs tool, process " + std::to_string(getpid()));
    KDFS_TRY_ASSIGN(pb::OpenSessionReply reply,
                    link.ask<pb::OpenSessionReply>(mds, MessageType::kOpenSession, request));
    session->session_ = reply.session();
    KDFS_TRY_ASSIGN(session->map_, ClusterMap::make(std::move(*reply.mutable_map())));
    return session;
}

MetaSession::~MetaSession() {
    if (session_ == 0) {
        return;
    }
    pb::CloseSessionRequest request;
    request.set_session(session_);
    // Without an answer the session ends by its lease.
    Result<pb::CloseSessionReply> closed =
        link_.ask<pb::CloseSessionReply>(mds_, MessageType::kCloseSession, request);
    (void)closed;
}

Result<pb::MetaReply> MetaSession::run(pb::MetaRequest request) {
    request.set_session(session_);
    auto deadline = std::chrono::steady_clock::now() + kRetryFor;
    for (;;) {
        Result<pb::MetaReply> reply =
            link_.ask<pb::MetaReply>(mds_, MessageType::kMeta, request, kRetryFor);
        if (reply.ok() || error_class(reply.error().code) != ErrorClass::kRetry ||
            std::chrono::steady_clock::now() >= deadline) {
            return reply;
        }
        std::this_thread::sleep_for(kRetryDelay);
    }
}

}  // namespace kdfs::tools
