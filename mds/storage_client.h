#pragma once

#include "kdfs/base/result.h"
#include "kdfs/proto/chunk.pb.h"
#include "kdfs/proto/layout.h"
#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"
#include "mds/manager.h"

#include <map>
#include <memory>
#include <string>

namespace kdfs::mds {

// The metadata server's way to the chunks: removes, cuts and measures the data of files. Each call
// goes to whoever is responsible by the newest map and is repeated while the cluster changes, until
// its deadline. Calls to one chunk must not overlap.
// Bound: kCallTimeout for one attempt, kRetryDelay between attempts without a new map.
class StorageClient {
public:
    // Writes of the metadata server itself: a session that is never fenced.
    static constexpr SessionId kSession{~uint64_t{0}};
    static constexpr Duration kCallTimeout = std::chrono::seconds(5);
    static constexpr Duration kRetryDelay = std::chrono::milliseconds(250);
    static constexpr uint32_t kListEntries = 1024;

    // Both outlive this. `first_write_id` is above all used by earlier lives.
    StorageClient(Env& env, Manager& manager, uint64_t first_write_id);
    Task<void> stop();

    // Removes the file's chunks with an index not below `from_index` on that chain. How many.
    Task<Result<uint64_t>> remove_data(ChainId chain,
                                       DataId data,
                                       uint64_t from_index,
                                       TimePoint deadline);
    // The piece ends at `offset`; durable on return.
    Task<Status> truncate(ChainId chain, ChunkId chunk, uint64_t offset, TimePoint deadline);
    // The end of the last byte that the chain holds of the file: 0 if nothing.
    Task<Result<uint64_t>> data_end(ChainId chain,
                                    DataId data,
                                    uint64_t piece_bytes,
                                    TimePoint deadline);

private:
    // Addresses of one attempt: by chain, head or any serving member.
    struct Place {
        TargetId target;
        uint64_t chain_version = 0;
        std::string address;
    };
    Result<Place> place_of(ChainId chain) const;
    RpcChannel& channel(const std::string& address);
    Task<Result<RpcReply>> attempt(std::string address, MessageType type, Buffer body);
    // Whether to try again; waits before it does.
    Task<bool> again(Error error, TimePoint deadline);
    Task<Result<pb::ListChunksReply>> list_page(pb::ListChunksRequest request, TimePoint deadline);

    Env& env_;
    Manager& manager_;
    uint64_t next_write_id_;
    bool stopping_ = false;
    Event stop_;
    std::map<std::string, std::unique_ptr<RpcChannel>> channels_;
};

}  // namespace kdfs::mds
