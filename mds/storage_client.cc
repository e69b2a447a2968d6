#include "mds/storage_client.h"

#include "kdfs/proto/cluster_map.h"
#include "kdfs/proto/wire.h"

#include <algorithm>
#include <utility>

namespace kdfs::mds {

StorageClient::StorageClient(Env& env, Manager& manager, uint64_t first_write_id)
    : env_(env), manager_(manager), next_write_id_(first_write_id) {}

Task<void> StorageClient::stop() {
    stopping_ = true;
    stop_.set();
    for (auto& [address, channel] : channels_) {
        co_await channel->stop();
    }
}

RpcChannel& StorageClient::channel(const std::string& address) {
    std::unique_ptr<RpcChannel>& slot = channels_[address];
    if (!slot) {
        slot = std::make_unique<RpcChannel>(env_, address, ChannelKind::kData);
    }
    return *slot;
}

Result<StorageClient::Place> StorageClient::place_of(ChainId id) const {
    std::shared_ptr<const ClusterMap> map = manager_.map();
    const pb::Chain* chain = map->chain(id);
    if (chain == nullptr) {
        return Error(Errc::kNotFound,
                     "chain " + std::to_string(id.value) + " is not in the cluster map");
    }
    Place place;
    place.target = head_of(*chain);
    place.chain_version = chain->version();
    const pb::Node* node = map->node_of(place.target);
    if (node == nullptr) {
        return Error(Errc::kNotServing,
                     "no target of chain " + std::to_string(id.value) + " serves");
    }
    place.address = node->address();
    return place;
}

Task<Result<RpcReply>> StorageClient::attempt(std::string address, MessageType type, Buffer body) {
    if (stopping_) {
        co_return Error(Errc::kCancelled, "the metadata server is stopping");
    }
    RpcCall call(type, std::move(body), env_.now() + kCallTimeout);
    co_return co_await channel(address).call(std::move(call));
}

Task<bool> StorageClient::again(Error error, TimePoint deadline) {
    ErrorClass kind = error_class(error.code);
    bool passing = kind == ErrorClass::kRetry || kind == ErrorClass::kRetryElsewhere ||
                   kind == ErrorClass::kRefresh;
    if (!passing || stopping_ || env_.now() >= deadline) {
        co_return false;
    }
    TimePoint until = std::min(deadline, env_.now() + kRetryDelay);
    co_await stop_.wait_until(until);
    co_return !stopping_;
}

Task<Result<uint64_t>> StorageClient::remove_data(ChainId chain,
                                                  DataId data,
                                                  uint64_t from_index,
                                                  TimePoint deadline) {
    // One number for all attempts, as with writes. Of a file that goes as a whole nothing new can
    // grow behind the removal.
    uint64_t number = from_index == 0 ? 0 : next_write_id_++;
    while (true) {
        Error failure;
        Result<Place> place = place_of(chain);
        if (place.ok()) {
            pb::RemoveDataRequest request;
            request.set_number(number);
            request.set_chain(chain.value);
            request.set_chain_version(place->chain_version);
            request.set_data(data.value);
            request.set_from_index(from_index);
            auto reply =
                co_await attempt(place->address, MessageType::kRemoveData, encode(request));
            if (reply.ok()) {
                KDFS_CO_TRY_ASSIGN(auto body, decode<pb::RemoveDataReply>(reply->body));
                co_return body.removed();
            }
            failure = reply.error();
        } else {
            failure = place.error();
        }
        bool more = co_await again(failure, deadline);
        if (!more) {
            co_return failure;
        }
    }
}

Task<Status> StorageClient::truncate(ChainId chain,
                                     ChunkId chunk,
                                     uint64_t offset,
                                     TimePoint deadline) {
    // One id for all attempts: a repeated write is answered, not done again.
    uint64_t write_id = next_write_id_++;
    while (true) {
        Error failure;
        Result<Place> place = place_of(chain);
        if (place.ok()) {
            pb::WriteRequest request;
            request.set_chain(chain.value);
            request.set_chain_version(place->chain_version);
            request.mutable_chunk()->set_data(chunk.data.value);
            request.mutable_chunk()->set_index(chunk.index);
            request.set_kind(pb::WRITE_TRUNCATE);
            request.set_offset(offset);
            request.set_session(kSession.value);
            request.set_write_id(write_id);
            request.set_sync(true);
            auto reply = co_await attempt(place->address, MessageType::kWrite, encode(request));
            if (reply.ok()) {
                co_return Status();
            }
            failure = reply.error();
        } else {
            failure = place.error();
        }
        bool more = co_await again(failure, deadline);
        if (!more) {
            co_return failure;
        }
    }
}

Task<Result<pb::ListChunksReply>> StorageClient::list_page(pb::ListChunksRequest request,
                                                           TimePoint deadline) {
    while (true) {
        Error failure;
        Result<Place> place = place_of(ChainId(request.chain()));
        if (place.ok()) {
            request.set_target(place->target.value);
            request.set_chain_version(place->chain_version);
            auto reply =
                co_await attempt(place->address, MessageType::kListChunks, encode(request));
            if (reply.ok()) {
                co_return decode<pb::ListChunksReply>(reply->body);
            }
            failure = reply.error();
        } else {
            failure = place.error();
        }
        bool more = co_await again(failure, deadline);
        if (!more) {
            co_return failure;
        }
    }
}

Task<Result<uint64_t>> StorageClient::data_end(ChainId chain,
                                               DataId data,
                                               uint64_t piece_bytes,
                                               TimePoint deadline) {
    pb::ListChunksRequest request;
    request.set_chain(chain.value);
    request.set_only_data(data.value);
    request.set_entries_max(kListEntries);
    uint64_t end = 0;
    while (true) {
        KDFS_CO_TRY_ASSIGN(pb::ListChunksReply page, co_await list_page(request, deadline));
        for (const pb::ChunkEntry& e : page.entries()) {
            if (e.length() > 0) {
                end = std::max(end, e.chunk().index() * piece_bytes + e.length());
            }
        }
        if (!page.more() || page.entries().empty()) {
            co_return end;
        }
        *request.mutable_after() = page.entries(page.entries_size() - 1).chunk();
    }
}

}  // namespace kdfs::mds
