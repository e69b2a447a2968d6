#pragma once

#include "client/map_source.h"
#include "client/options.h"
#include "kdfs/proto/meta.pb.h"
#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"

#include <memory>
#include <set>
#include <vector>

namespace kdfs::client {

// Who holds the leases of a session, as the session sees it. Called on the loop.
class LeaseHolder {
public:
    virtual ~LeaseHolder() = default;
    // Gives a lease back: dirty data is in the chunks and kernel caches are dropped at completion.
    // Must not wait for the metadata server.
    virtual Task<pb::RecallReply> recall(pb::RecallRequest request) = 0;
    // What is held and open now, in ascending order of inodes. Of what does not fit into
    // `bytes_max` of messages the holder gives up leases, never one with unwritten data: if it has
    // more of those than fit, the list is longer.
    virtual std::vector<pb::HeldLease> held(size_t bytes_max) = 0;
    // The server may soon forget the session: nothing cached may be used until resumed().
    virtual void suspended() = 0;
    // The session goes on. Leases on `refused` are gone.
    virtual void resumed(const std::vector<uint64_t>& refused) = 0;
    // The session was fenced or forgotten: every lease and all that was dirty under it is gone.
    virtual void lost() = 0;
};

// The session of one client with the metadata server: connects, opens or resumes it, renews it,
// keeps the cluster map, and makes calls that go on through reconnects.
//
// Leases in time: every answer of the server renews. The client counts from the moment it sent the
// request and stops using caches kMarginParts of the lease early, so it always stops before the
// server may give its leases away, as long as clocks run equally fast within that margin.
//
// Exactly once: a change keeps its sequence number over all its attempts. If the session was lost
// meanwhile, nobody knows whether it happened: kFenced.
//
// One loop; `env` and `holder` outlive this.
class Session final : public MapSource {
public:
    static constexpr Duration kAttemptTimeout = std::chrono::seconds(30);
    static constexpr Duration kRetryDelayMin = std::chrono::milliseconds(10);
    static constexpr Duration kRetryDelayMax = std::chrono::milliseconds(500);
    static constexpr int kRenewalsPerLease = 4;
    static constexpr int kMarginParts = 8;  // of the lease
    static constexpr Duration kMapQuerySpacing = std::chrono::milliseconds(100);
    // Of one request to resume, what is held; the rest is names.
    static constexpr size_t kHeldBytesMax = kBodyBytesMax - 64 * KiB;

    Session(Env& env, const ClientOptions& options, LeaseHolder& holder);
    ~Session() override;

    // Opens the session. Fails with the last error if it is not open by `deadline`, at once if
    // trying again cannot help (wrong key, wrong cluster, wrong version).
    Task<Status> start(TimePoint deadline);
    // Ends the session on the server, so that others need not wait for it, and every task.
    Task<void> stop();

    // One namespace operation. Waits through restarts of the server for options.patience, then
    // gives the last error. kFenced if the session was lost while a change was under way.
    Task<Result<pb::MetaReply>> call(pb::MetaRequest request);
    // Calls under way, whose answers may still bring grants.
    size_t calls() const { return calls_; }

    // False while caches may not be used.
    bool usable() const { return state_ == State::kOpen && env_.now() < valid_until_; }
    // Returns when usable() or, with false, at `until`.
    Task<bool> wait_usable(TimePoint until);
    // Returns when a session other than `id` is open (true), or at `until` (false): for who was
    // refused because `id` is over, which this may not have heard yet.
    Task<bool> wait_for_another(SessionId id, TimePoint until);

    std::shared_ptr<const ClusterMap> map() const override { return map_; }
    Task<bool> wait_newer(Epoch epoch, TimePoint until) override;
    SessionId session() const override { return id_; }
    // Goes up when a session is lost.
    uint64_t generation() const { return generation_; }
    // Any other call to the server (tools): no sequence number, one attempt until `deadline`.
    Task<Result<RpcReply>> raw_call(MessageType type, Buffer body, TimePoint deadline);

private:
    enum class State { kNone, kOpen, kSuspended, kStopped };

    Task<Result<std::shared_ptr<RpcConnection>>> ensure_open();
    Task<void> open_session();
    Task<Status> open_on(std::shared_ptr<RpcConnection> connection);
    pb::OpenSessionRequest opening_request();
    Task<Status> adopt_opened(pb::OpenSessionReply reply, SessionId asked);
    void alive(TimePoint sent_at);
    void lose(const char* cause);
    struct CallState;
    // Both belong to the frame of call(), which waits.
    Task<Result<pb::MetaReply>> call_once(pb::MetaRequest& request, CallState& state);
    Task<Result<pb::MetaReply>> attempt(std::shared_ptr<RpcConnection> connection,
                                        Buffer body,
                                        TimePoint deadline);
    Task<void> renew_loop();
    Task<void> renew();
    Task<void> reconnect_after(std::shared_ptr<RpcConnection> connection);
    Task<void> query_map();
    Task<Result<RpcReply>> handle(RpcRequest request);
    void adopt_map(const pb::ClusterMap& map);
    void check_expiry();

    Env& env_;
    const ClientOptions& options_;
    LeaseHolder& holder_;
    Random random_;

    State state_ = State::kNone;
    SessionId id_;
    uint64_t generation_ = 0;  // goes up when a session is lost
    uint64_t open_connection_ = 0;
    uint64_t attempts_ = 0;  // to open or resume
    Duration lease_ = std::chrono::seconds(10);
    TimePoint valid_until_{};
    TimePoint last_sent_alive_{};
    uint64_t next_seq_ = 1;
    std::set<uint64_t> outstanding_;
    // The same for opens that change nothing.
    uint64_t next_open_seq_ = 1;
    std::set<uint64_t> outstanding_opens_;
    size_t calls_ = 0;

    std::shared_ptr<const ClusterMap> map_;
    Event map_changed_;
    bool querying_map_ = false;
    TimePoint next_map_query_{};

    bool opening_ = false;
    Status opened_;
    Event opening_done_;
    Event usable_changed_;
    Event stopping_;

    RpcChannel channel_;
    TaskScope scope_;
};

// True if trying again later may help, and nothing was decided.
bool worth_retry(Errc code);

}  // namespace kdfs::client
