#pragma once

#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/sync.h"
#include "mds/meta_service.h"
#include "mds/state.h"
#include "mds/trimmer.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace kdfs::mds {

// Sessions from opening to end. A session that is opened is on stable storage before its client
// hears of it, so that its number is never given out again.
//
// The end of a session whose client is gone: it is refused everything; every live storage daemon
// refuses it; the sizes of files it held exclusively are found from the chunks; its leases and open
// files go; its record goes.
class SessionService {
public:
    // How long the size of a file is looked for while nobody serves some of its chunks. After that
    // the size that the client last reported stands.
    static constexpr Duration kRecoverFor = std::chrono::seconds(30);
    // Looks for leases that ran out this many times per lease.
    static constexpr int kLooksPerLease = 32;
    static constexpr size_t kRecoveriesAtOnce = 16;
    static constexpr uint64_t kOrphansAtOnce = 256;

    // All outlive this.
    SessionService(State& state, MetaService& meta, Trimmer& trimmer);

    // Loads the sessions of an earlier life; grace begins.
    Task<Status> start();
    // Begins to watch the leases.
    void watch();
    Task<void> stop();

    Task<Result<RpcReply>> open(RpcRequest rpc);
    Task<Result<RpcReply>> renew(RpcRequest rpc);
    Task<Result<RpcReply>> close(RpcRequest rpc);
    // Ends the sessions of a client that somebody on its machine knows to be dead. Answers when the
    // end has begun.
    Task<Result<RpcReply>> end(RpcRequest rpc);
    void disconnected(uint64_t connection);

private:
    Task<Result<pb::OpenSessionReply>> open_new(pb::OpenSessionRequest request,
                                                std::shared_ptr<RpcConnection> connection);
    Task<Result<pb::OpenSessionReply>> resume(pb::OpenSessionRequest request,
                                              std::shared_ptr<RpcConnection> connection);
    Status may_resume(SessionId id);
    // The sizes and times that the client has told in answers that may have got lost.
    Task<Status> take_claims(const pb::OpenSessionRequest& request);
    Task<Status> take_dirty(DirtyState dirty);
    // Makes the lease table agree with what the client says it holds. What it may not keep.
    std::vector<uint64_t> reconcile(SessionId id,
                                    bool known,
                                    const pb::OpenSessionRequest& request);
    void bind(SessionId id, std::shared_ptr<RpcConnection> connection);
    Status restore_sessions(const std::vector<KvEntry>& entries);
    Task<Status> load_replies();
    Task<void> look_for_expired();
    Task<void> sweep_orphans();
    // What it held is given away at `lease_end` at the earliest.
    Task<void> expire(SessionId id, TimePoint lease_end);
    Task<Status> forget_ends();
    Task<Status> recover_sizes(SessionId id);
    Task<Status> recover_size(InodeId ino);
    Task<Result<uint64_t>> end_of_data(pb::Attr attr, TimePoint deadline);
    Task<Status> erase(SessionId id);

    State& state_;
    MetaService& meta_;
    Trimmer& trimmer_;
    uint64_t next_session_ = 1;
    bool orphans_swept_ = false;
    Event stop_;
    TaskScope scope_;
    // What tasks of scope_ wait for: closed after it.
    TaskScope parts_;
};

}  // namespace kdfs::mds
