// Cloning of chunks along a chain. See replicator.h.

#include "kdfs/proto/wire.h"
#include "storage/replicator.h"

#include <algorithm>
#include <utility>

namespace kdfs::storage {

class Replicator::CloneCargo final : public Replicator::Cargo {
public:
    CloneCargo(const pb::CloneDataRequest& request, const std::vector<ChunkPair>& pairs)
        : message_(request) {
        message_.set_forwarded(true);
        message_.clear_indexes();
        message_.clear_versions();
        for (const ChunkPair& pair : pairs) {
            message_.add_indexes(pair.index);
            message_.add_versions(pair.version);
        }
    }
    RpcCall make(const pb::Chain& chain, TargetId successor, TimePoint deadline) override {
        message_.set_chain_version(chain.version());
        message_.set_target(successor.value);
        return RpcCall(MessageType::kCloneData, encode(message_), deadline);
    }
    Task<Status> mend(TargetId, uint64_t) override {
        co_return Error(Errc::kBusy, "a clone fits on any state");
    }
    Status on_ack(const RpcReply& reply) override { return decode_into(reply_, reply.body); }
    const pb::CloneDataReply& reply() const { return reply_; }

private:
    pb::CloneDataRequest message_;
    pb::CloneDataReply reply_;
};

Task<Result<std::vector<Replicator::ChunkPair>>>
Replicator::clone_pairs(const pb::CloneDataRequest& request, const Member& member, uint64_t first) {
    std::vector<ChunkPair> out;
    if (request.forwarded()) {
        for (int i = 0; i < request.indexes_size(); ++i) {
            out.push_back(ChunkPair{request.indexes(i), request.versions(i)});
        }
        co_return out;
    }
    auto found =
        co_await indexes_of(member, DataId(request.from_data()), first, request.beyond_index());
    if (!found.ok()) {
        co_return std::move(found).error();
    }
    for (const ChunkId& chunk : *found) {
        out.push_back(ChunkPair{chunk.index, 0});
    }
    co_return out;
}

Task<std::vector<Replicator::Locked>> Replicator::lock_chunks(const Member& member,
                                                              std::vector<ChunkId> chunks) {
    // In key order everywhere, so that two callers cannot wait for each other.
    std::sort(chunks.begin(), chunks.end());
    chunks.erase(std::unique(chunks.begin(), chunks.end()), chunks.end());
    std::vector<Locked> out;
    for (const ChunkId& chunk : chunks) {
        Locked locked;
        locked.key.chain = member.chain;
        locked.key.chunk = chunk;
        locked.slot = ChunkSlots::Ref(slots_, ChunkSlots::Key(member.target, locked.key));
        locked.hold = co_await locked.slot->mutex.lock();
        locked.pending = ChunkSlots::Pending(*locked.slot);
        out.push_back(std::move(locked));
    }
    co_return out;
}

// Clones the pairs here; those whose source is not the head's are added to `missing`.
Task<Status> Replicator::clone_here(const pb::CloneDataRequest& request,
                                    const Member& member,
                                    const std::vector<ChunkPair>& pairs,
                                    std::vector<uint64_t>* missing) {
    for (const ChunkPair& pair : pairs) {
        ChunkKey from;
        from.chain = member.chain;
        from.chunk.data = DataId(request.from_data());
        from.chunk.index = pair.index;
        ChunkKey to = from;
        to.chunk.data = DataId(request.to_data());
        auto source = co_await member.store->find(from);
        auto base = co_await member.store->find(to);
        bool fits = source.ok() && base.ok() && *source && (*source)->version.value == pair.version;
        if (!fits) {
            missing->push_back(pair.index);
            continue;
        }
        auto made = co_await member.store->clone(*source, to, *base);
        if (!made.ok()) {
            co_return std::move(made).error();
        }
    }
    co_return Status();
}

Task<Result<uint64_t>> Replicator::clone_page(const pb::CloneDataRequest& request,
                                              const Member& member,
                                              std::vector<ChunkPair> pairs,
                                              std::vector<uint64_t>* missing) {
    std::vector<ChunkId> chunks;
    for (const ChunkPair& pair : pairs) {
        for (uint64_t data : {request.from_data(), request.to_data()}) {
            ChunkId chunk;
            chunk.data = DataId(data);
            chunk.index = pair.index;
            chunks.push_back(chunk);
        }
    }
    std::vector<Locked> locked = co_await lock_chunks(member, std::move(chunks));
    if (!request.forwarded()) {
        for (ChunkPair& pair : pairs) {
            ChunkKey from;
            from.chain = member.chain;
            from.chunk.data = DataId(request.from_data());
            from.chunk.index = pair.index;
            auto source = co_await member.store->find(from);
            if (!source.ok()) {
                co_return std::move(source).error();
            }
            pair.version = *source ? (*source)->version.value : 0;
        }
    }
    CloneCargo cargo(request, pairs);
    Flight flight;
    flight.member = member;
    do {
        KDFS_CO_TRY(co_await forward(flight, cargo));
    } while (!has_arrived(flight));
    KDFS_CO_TRY(co_await clone_here(request, member, pairs, missing));
    std::vector<uint64_t> lacking(cargo.reply().missing().begin(), cargo.reply().missing().end());
    KDFS_CO_TRY(co_await send_missing(member, DataId(request.to_data()), std::move(lacking)));
    co_return pairs.size() - missing->size();
}

Task<Result<RpcReply>> Replicator::clone_data(RpcRequest request) {
    pb::CloneDataRequest message;
    KDFS_CO_TRY(decode_into(message, request.body));
    if (message.from_data() == 0 || message.to_data() == 0 ||
        message.from_data() == message.to_data() ||
        message.indexes_size() != message.versions_size() ||
        static_cast<uint64_t>(message.indexes_size()) > kRemovePage) {
        co_return Error(Errc::kInvalidArgument, "clone: bad data ids, or too many chunks at once");
    }
    From from = message.forwarded() ? From::kMember : From::kClient;
    uint64_t first = message.first_index();
    pb::CloneDataReply reply;
    for (bool more = true; more;) {
        Member member;
        KDFS_CO_TRY_ASSIGN(member,
                           find_writer(ChainId(message.chain()),
                                       message.chain_version(),
                                       from,
                                       TargetId(message.target())));
        auto pairs = co_await clone_pairs(message, member, first);
        if (!pairs.ok()) {
            co_return seen_from_outside(member, pairs.error());
        }
        if (pairs->empty()) {
            break;
        }
        more = !message.forwarded() && pairs->size() == kRemovePage;
        first = pairs->back().index + 1;
        std::vector<uint64_t> missing;
        auto cloned = co_await clone_page(message, member, std::move(*pairs), &missing);
        if (!cloned.ok()) {
            co_return seen_from_outside(member, cloned.error());
        }
        reply.set_cloned(reply.cloned() + *cloned);
        for (uint64_t index : missing) {
            reply.add_missing(index);
        }
        Status flushed = co_await member.store->flushed();
        if (!flushed.ok()) {
            co_return seen_from_outside(member, flushed.error());
        }
    }
    co_return RpcReply(encode(reply));
}

}  // namespace kdfs::storage
