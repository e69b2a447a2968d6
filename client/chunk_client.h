#pragma once

#include "client/map_source.h"
#include "client/options.h"
#include "kdfs/proto/chunk.pb.h"
#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::client {

// A range of one piece to read. Classes with constructors: see RpcCall.
struct ChunkRead {
    ChunkId chunk;
    ChainId chain;
    uint64_t offset = 0;  // in the piece
    uint64_t length = 0;
    // Under which it was learned that the file has this chunk.
    SessionId session;
    // The file was found damaged before: if no member has the range whole, say so at once.
    bool known_damaged = false;

    ChunkRead(ChunkId c, ChainId on, uint64_t at, uint64_t bytes, SessionId under)
        : chunk(c), chain(on), offset(at), length(bytes), session(under) {}
};

enum class Durability { kCommitted, kSynced };

struct ChunkWrite {
    ChunkId chunk;
    ChainId chain;
    uint64_t offset = 0;  // in the piece
    BufferChain data;
    Durability durability = Durability::kCommitted;
    // Under which the server knows that the file may be written here.
    SessionId session;

    ChunkWrite(ChunkId c, ChainId on, uint64_t at, BufferChain bytes, SessionId under)
        : chunk(c), chain(on), offset(at), data(std::move(bytes)), session(under) {}
};

// Reads and writes pieces on their chains, through failures: an error is looked at by class, the
// map is fetched anew or another replica asked, until options.patience is over. One connection per
// storage daemon. One loop; what the constructor is given outlives this.
//
// Bounds: options.window_bytes on their way at once; beyond it calls wait their turn.
// Errors: kNoSpace, kFenced (the session was lost), kCorrupt (every replica's bytes are damaged;
// names chunk and target), or the last error when patience is over.
class ChunkClient {
public:
    // An attempt without an answer is given up and made again elsewhere after this; each further
    // round waits twice as long, up to kAttemptMax.
    static constexpr Duration kReadAttempt = std::chrono::seconds(2);
    static constexpr Duration kWriteAttempt = std::chrono::seconds(5);
    static constexpr Duration kAttemptMax = std::chrono::seconds(20);
    // So many damaged copies are named as errors in the log of one mount, the rest for debugging.
    static constexpr size_t kToldMax = 1024;
    // When every member has the chunk damaged, before they are asked once more.
    static constexpr Duration kRepairWait = std::chrono::milliseconds(500);
    static constexpr Duration kBackoffMin = std::chrono::milliseconds(20);
    static constexpr Duration kBackoffMax = std::chrono::milliseconds(500);

    ChunkClient(Env& env, const ClientOptions& options, MapSource& source);
    ~ChunkClient();

    // The bytes of the range that the chunk has; fewer where it ends. kFenced once what.session is
    // over: what is known of the file may be out of date, and the chunk may belong to nobody.
    Task<Result<BufferChain>> read(ChunkRead what);
    // Completes when every member that takes writes has committed. Writes to one chunk run one at
    // a time, in the order of the calls. Gives the chain's number for sync(). kFenced once
    // what.session is over, also while it waits its turn: the file may be gone, and nobody would
    // collect what is written under the next.
    Task<Result<uint64_t>> write(ChunkWrite what);
    // Makes everything committed so far on these chains durable on each of their serving members.
    // kLostData if commits since a write that gave such a number may have been lost.
    Task<Status> sync(std::map<ChainId, uint64_t> written);
    // One request to one storage daemon (tools): no retry.
    Task<Result<RpcReply>> raw_call(NodeId node, RpcCall call);
    Task<void> stop();

private:
    struct NodeChannel {
        std::string address;
        std::shared_ptr<RpcChannel> channel;
    };
    // Writers of one chunk line up here.
    struct ChunkQueue {
        AsyncMutex mutex;
        size_t users = 0;
    };
    class QueueUse;
    struct ReadState;

    std::shared_ptr<RpcChannel> channel_to(const pb::Node& node);
    Task<void> retire(std::shared_ptr<RpcChannel> channel);
    TargetId choose_replica(const ClusterMap& map, const ReadState& state) const;
    Task<Result<BufferChain>> read_from(std::shared_ptr<const ClusterMap> map,
                                        TargetId target,
                                        const ReadState& state);
    Task<Status> after_read_error(ReadState& state, Epoch epoch, TargetId target, Error error);
    Task<Status> write_once(std::shared_ptr<const ClusterMap> map,
                            const pb::WriteRequest& request,
                            const BufferChain& data,
                            Duration timeout);
    // Leaves in `chains`, which outlives the task, those that are not synced; then it fails.
    Task<Status> sync_once(std::shared_ptr<const ClusterMap> map, std::set<ChainId>& chains);
    Task<Status> sync_target(std::shared_ptr<const ClusterMap> map, pb::SyncRequest request);

    Env& env_;
    const ClientOptions& options_;
    MapSource& source_;
    uint64_t next_write_id_ = 1;
    uint64_t window_bytes_;
    Semaphore window_;
    std::map<NodeId, NodeChannel> channels_;
    std::map<ChunkId, ChunkQueue> queues_;
    // Of which the log says that they are damaged there.
    std::set<std::pair<ChunkId, TargetId>> told_;
    TaskScope scope_;
};

}  // namespace kdfs::client
