#include "client/chunk_client.h"

#include "client/block_sums.h"
#include "client/session.h"
#include "kdfs/base/mutant.h"
#include "kdfs/proto/wire.h"

#include <algorithm>
#include <utility>

namespace kdfs::client {
namespace {

void set_key(pb::ChunkKey* key, const ChunkId& chunk) {
    key->set_data(chunk.data.value);
    key->set_index(chunk.index);
}

Error nobody_serves(ChainId chain) {
    return {Errc::kNotServing,
            "no replica of chain " + std::to_string(chain.value) +
                " serves now; see `kdfs status` for the nodes that are missing"};
}

Error with_chunk(Error error, const ChunkId& chunk, TargetId target) {
    error.detail = "chunk " + to_string(chunk) + " on target " + std::to_string(target.value) +
                   ": " + error.detail;
    return error;
}

Duration doubled(Duration delay, Duration most) { return std::min(delay * 2, most); }

struct SyncPlan {
    std::map<TargetId, pb::SyncRequest> requests;
    std::set<ChainId> unserved;
};

// Every serving member of a chain is asked, each target once.
SyncPlan plan_sync(const ClusterMap& map, const std::set<ChainId>& chains) {
    SyncPlan plan;
    for (ChainId id : chains) {
        const pb::Chain* chain = map.chain(id);
        if (chain == nullptr || !head_of(*chain)) {
            plan.unserved.insert(id);
            continue;
        }
        for (TargetId target : serving_members(*chain)) {
            pb::SyncRequest& request = plan.requests[target];
            request.set_target(target.value);
            pb::SyncChain* one = request.add_chains();
            one->set_chain(id.value);
            one->set_chain_version(chain->version());
        }
    }
    return plan;
}

}  // namespace

// One read on its way through the replicas.
struct ChunkClient::ReadState {
    ChunkId chunk;
    ChainId chain;
    uint64_t offset = 0;  // rounded out to blocks
    uint64_t length = 0;
    SessionId session;
    std::set<TargetId> tried;
    Error last;
    // In this round: one said that it cannot be had from it; one did not say.
    bool corrupt = false;
    bool away = false;
    bool waited_for_repair = false;
    Duration timeout = kReadAttempt;
    Duration delay = kBackoffMin;
    TimePoint deadline;

    void begin_round() {
        tried.clear();
        corrupt = false;
        away = false;
    }
};

class ChunkClient::QueueUse {
public:
    QueueUse(std::map<ChunkId, ChunkQueue>& queues, const ChunkId& chunk)
        : queues_(queues), chunk_(chunk) {
        ++queues_[chunk].users;
    }
    ~QueueUse() {
        hold.release();
        auto found = queues_.find(chunk_);
        if (--found->second.users == 0) {
            queues_.erase(found);
        }
    }
    QueueUse(const QueueUse&) = delete;
    QueueUse& operator=(const QueueUse&) = delete;
    AsyncMutex& mutex() { return queues_.find(chunk_)->second.mutex; }

    SemaphoreHold hold;

private:
    std::map<ChunkId, ChunkQueue>& queues_;
    ChunkId chunk_;
};

namespace {

uint64_t losses_of(const ClusterMap& map, ChainId id) {
    const pb::Chain* chain = map.chain(id);
    return chain == nullptr ? 0 : chain->losses();
}

}  // namespace

ChunkClient::ChunkClient(Env& env, const ClientOptions& options, MapSource& source)
    : env_(env),
      options_(options),
      source_(source),
      window_bytes_(std::max(options.window_bytes, kPieceBytesMax)),
      window_(window_bytes_),
      scope_(env.scheduler()) {}

ChunkClient::~ChunkClient() = default;

Task<void> ChunkClient::stop() {
    std::map<NodeId, NodeChannel> channels = std::move(channels_);
    channels_.clear();
    for (auto& [id, entry] : channels) {
        co_await entry.channel->stop();
    }
    co_await scope_.close();
}

std::shared_ptr<RpcChannel> ChunkClient::channel_to(const pb::Node& node) {
    bool local = !node.unix_address().empty() && node.name() == options_.node_name;
    const std::string& address = local ? node.unix_address() : node.address();
    NodeChannel& entry = channels_[NodeId(node.id())];
    if (!entry.channel || entry.address != address) {
        if (entry.channel) {
            scope_.spawn(retire(std::move(entry.channel)));
        }
        entry.address = address;
        entry.channel = std::make_shared<RpcChannel>(env_, address, ChannelKind::kData);
    }
    return entry.channel;
}

Task<void> ChunkClient::retire(std::shared_ptr<RpcChannel> channel) { co_await channel->stop(); }

Task<Result<RpcReply>> ChunkClient::raw_call(NodeId node, RpcCall call) {
    std::shared_ptr<const ClusterMap> map = source_.map();
    const pb::Node* found = map->node(node);
    if (found == nullptr) {
        co_return Error(Errc::kNotFound, "no node " + std::to_string(node.value) + " in the map");
    }
    std::shared_ptr<RpcChannel> channel = channel_to(*found);
    co_return co_await channel->call(std::move(call));
}

TargetId ChunkClient::choose_replica(const ClusterMap& map, const ReadState& state) const {
    const pb::Chain* chain = map.chain(state.chain);
    if (chain == nullptr) {
        return {};
    }
    std::vector<TargetId> serving = serving_members(*chain);
    // Neighbouring chunks start at different replicas, so that readers use all disks.
    for (size_t i = 0; i < serving.size(); ++i) {
        const pb::Node* node = map.node_of(serving[i]);
        if (!options_.node_name.empty() && node->name() == options_.node_name) {
            std::rotate(serving.begin(),
                        serving.begin() + static_cast<std::ptrdiff_t>(i),
                        serving.end());
            break;
        }
        if (i + 1 == serving.size()) {
            std::rotate(
                serving.begin(),
                serving.begin() + static_cast<std::ptrdiff_t>(state.chunk.index % serving.size()),
                serving.end());
        }
    }
    for (TargetId target : serving) {
        if (!state.tried.contains(target)) {
            return target;
        }
    }
    return {};
}

Task<Result<BufferChain>> ChunkClient::read(ChunkRead what) {
    ReadState state;
    state.chunk = what.chunk;
    state.chain = what.chain;
    state.session = what.session;
    state.offset = what.offset / kBlockBytes * kBlockBytes;
    uint64_t end = (what.offset + what.length + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    state.length = std::min(end, kPieceBytesMax) - state.offset;
    state.deadline = env_.now() + options_.patience;
    state.waited_for_repair = what.known_damaged;
    co_await window_.acquire(state.length);
    SemaphoreHold hold(window_, state.length);
    while (true) {
        if (source_.session() != state.session) {
            co_return Error(Errc::kFenced,
                            "chunk " + to_string(what.chunk) +
                                ": the session was lost before the read was done");
        }
        std::shared_ptr<const ClusterMap> map = source_.map();
        TargetId target = choose_replica(*map, state);
        if (target) {
            auto data = co_await read_from(map, target, state);
            if (data.ok()) {
                uint64_t skip = std::min<uint64_t>(what.offset - state.offset, data->size());
                uint64_t take = std::min<uint64_t>(what.length, data->size() - skip);
                co_return data->slice(skip, take);
            }
            Error error = std::move(data).error();
            KDFS_CO_TRY(co_await after_read_error(state, map->epoch(), target, std::move(error)));
            continue;
        }
        if (state.tried.empty()) {
            state.last = nobody_serves(state.chain);
        }
        // Whoever did not say may have it whole.
        bool lost = state.corrupt && !state.away;
        bool may_be_repaired = lost && state.last.code == Errc::kCorrupt &&
                               !std::exchange(state.waited_for_repair, true);
        if ((lost && !may_be_repaired) || env_.now() >= state.deadline) {
            co_return state.last;
        }
        if (lost) {
            // The members put it together from blocks that one of them has whole.
            co_await sleep_for(env_.scheduler(), kRepairWait);
            state.begin_round();
            continue;
        }
        // Every replica was tried: once more, with more time, or with a newer map.
        co_await source_.wait_newer(map->epoch(), env_.now() + state.delay);
        state.delay = doubled(state.delay, kBackoffMax);
        state.timeout = doubled(state.timeout, kAttemptMax);
        state.begin_round();
    }
}

Task<Result<BufferChain>> ChunkClient::read_from(std::shared_ptr<const ClusterMap> map,
                                                 TargetId target,
                                                 const ReadState& state) {
    const pb::Chain* chain = map->chain(state.chain);
    std::shared_ptr<RpcChannel> channel = channel_to(*map->node_of(target));
    pb::ReadRequest request;
    request.set_chain(state.chain.value);
    request.set_chain_version(chain->version());
    set_key(request.mutable_chunk(), state.chunk);
    request.set_offset(state.offset);
    request.set_length(static_cast<uint32_t>(state.length));
    request.set_session(state.session.value);
    TimePoint deadline = std::min(state.deadline, env_.now() + state.timeout);
    RpcCall call(MessageType::kRead, encode(request), deadline);
    auto reply = co_await channel->call(std::move(call));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    auto body = decode<pb::ReadReply>(reply->body);
    if (!body.ok()) {
        co_return std::move(body).error();
    }
    if (reply->payload.size() > state.length) {
        co_return Error(Errc::kMalformed, "answered with more bytes than were asked for");
    }
    KDFS_CO_TRY(verify_block_sums(reply->payload, body->checksums()));
    co_return std::move(reply->payload);
}

// Prepares the next attempt, or fails if there is no point in one.
Task<Status> ChunkClient::after_read_error(ReadState& state,
                                           Epoch epoch,
                                           TargetId target,
                                           Error error) {
    if (error.code == Errc::kCorrupt) {
        bool is_new =
            told_.size() < kToldMax && told_.insert(std::pair(state.chunk, target)).second;
        LogEvent(env_.log(),
                 is_new ? LogLevel::kError : LogLevel::kDebug,
                 "corrupt replica read around")
            .with("chunk", to_string(state.chunk))
            .with("target", target)
            .with("cause", error.detail);
    }
    state.last = with_chunk(std::move(error), state.chunk, target);
    ErrorClass kind = error_class(state.last.code);
    if (state.last.code == Errc::kFenced) {
        co_return state.last;
    }
    if (kind == ErrorClass::kRefresh) {
        if (env_.now() >= state.deadline) {
            co_return state.last;
        }
        co_await source_.wait_newer(epoch, env_.now() + state.delay);
        state.delay = doubled(state.delay, kBackoffMax);
        state.begin_round();
        co_return Status();
    }
    if (kind == ErrorClass::kCaller) {
        co_return state.last;
    }
    // Another replica may have it; if all say the same, that is the answer.
    bool has_it_not = state.last.code == Errc::kCorrupt || kind == ErrorClass::kFatal;
    state.corrupt = state.corrupt || has_it_not;
    state.away = state.away || !has_it_not;
    state.tried.insert(target);
    co_return Status();
}

Task<Result<uint64_t>> ChunkClient::write(ChunkWrite what) {
    QueueUse use(queues_, what.chunk);
    use.hold = co_await use.mutex().lock();
    uint64_t cost = std::max<uint64_t>(std::min(what.data.size(), window_bytes_), 1);
    co_await window_.acquire(cost);
    SemaphoreHold window(window_, cost);

    pb::WriteRequest request;
    request.set_chain(what.chain.value);
    set_key(request.mutable_chunk(), what.chunk);
    request.set_kind(pb::WRITE_DATA);
    request.set_offset(what.offset);
    request.set_checksums(block_sums(what.offset, what.data));
    request.set_session(what.session.value);
    request.set_write_id(next_write_id_++);
    request.set_sync(what.durability == Durability::kSynced);

    TimePoint deadline = env_.now() + options_.patience;
    Duration timeout = kWriteAttempt;
    Duration delay = kBackoffMin;
    while (true) {
        if (source_.session() != what.session) {
            co_return Error(Errc::kFenced,
                            "chunk " + to_string(what.chunk) +
                                ": the session was lost before the write was done");
        }
        std::shared_ptr<const ClusterMap> map = source_.map();
        // As it was before: what breaks meanwhile may take this write along.
        uint64_t losses = losses_of(*map, what.chain);
        Status done = co_await write_once(map, request, what.data, timeout);
        if (done.ok()) {
            co_return losses;
        }
        if (!worth_retry(done.error().code) || env_.now() >= deadline) {
            co_return std::move(done).error();
        }
        if (done.error().code == Errc::kTimeout) {
            timeout = doubled(timeout, kAttemptMax);
        }
        co_await source_.wait_newer(map->epoch(), env_.now() + delay);
        delay = doubled(delay, kBackoffMax);
    }
}

Task<Status> ChunkClient::write_once(std::shared_ptr<const ClusterMap> map,
                                     const pb::WriteRequest& request,
                                     const BufferChain& data,
                                     Duration timeout) {
    ChainId chain_id(request.chain());
    const pb::Chain* chain = map->chain(chain_id);
    TargetId head;
    if (chain != nullptr) {
        head = head_of(*chain);
    }
    if (!head) {
        co_return nobody_serves(chain_id);
    }
    pb::WriteRequest current = request;
    current.set_chain_version(chain->version());
    std::shared_ptr<RpcChannel> channel = channel_to(*map->node_of(head));
    RpcCall call(MessageType::kWrite, encode(current), data, env_.now() + timeout);
    auto reply = co_await channel->call(std::move(call));
    if (!reply.ok()) {
        ChunkId chunk;
        chunk.data = DataId(request.chunk().data());
        chunk.index = request.chunk().index();
        co_return with_chunk(std::move(reply).error(), chunk, head);
    }
    co_return Status();
}

Task<Status> ChunkClient::sync(std::map<ChainId, uint64_t> written) {
    std::set<ChainId> pending;
    for (auto& [chain, losses] : written) {
        pending.insert(chain);
    }
    TimePoint deadline = env_.now() + options_.patience;
    Duration delay = kBackoffMin;
    while (!pending.empty()) {
        std::shared_ptr<const ClusterMap> map = source_.map();
        Status done = co_await sync_once(map, pending);
        if (pending.empty()) {
            break;
        }
        if (!worth_retry(done.error().code) || env_.now() >= deadline) {
            co_return done;
        }
        co_await source_.wait_newer(map->epoch(), env_.now() + delay);
        delay = doubled(delay, kBackoffMax);
    }
    for (auto& [chain, losses] : written) {
        if (losses_of(*source_.map(), chain) != losses && !mutant("ignore_lost_commits")) {
            co_return Error(Errc::kLostData,
                            "the machines with chain " + std::to_string(chain.value) +
                                " went down before data on it was synced; write it again");
        }
    }
    co_return Status();
}

Task<Status> ChunkClient::sync_once(std::shared_ptr<const ClusterMap> map,
                                    std::set<ChainId>& chains) {
    SyncPlan plan = plan_sync(*map, chains);
    chains = std::move(plan.unserved);
    Status last;
    if (!chains.empty()) {
        last = nobody_serves(*chains.begin());
    }
    std::vector<Task<Status>> tasks;
    tasks.reserve(plan.requests.size());
    for (auto& [target, request] : plan.requests) {
        tasks.push_back(sync_target(map, request));
    }
    std::vector<Status> results = co_await when_all(scope_, std::move(tasks));
    size_t i = 0;
    for (auto& [target, request] : plan.requests) {
        Status& result = results[i++];
        if (result.ok()) {
            continue;
        }
        for (const pb::SyncChain& one : request.chains()) {
            chains.insert(ChainId(one.chain()));
        }
        last = std::move(result);
        if (!worth_retry(last.error().code)) {
            break;
        }
    }
    co_return last;
}

Task<Status> ChunkClient::sync_target(std::shared_ptr<const ClusterMap> map,
                                      pb::SyncRequest request) {
    TargetId target(request.target());
    std::shared_ptr<RpcChannel> channel = channel_to(*map->node_of(target));
    RpcCall call(MessageType::kSync, encode(request), env_.now() + kAttemptMax);
    auto reply = co_await channel->call(std::move(call));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return Status();
}

}  // namespace kdfs::client
