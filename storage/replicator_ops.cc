// Reads, syncs, lists, and changes of many chunks at once. See replicator.h.

#include "kdfs/base/mutant.h"
#include "kdfs/proto/wire.h"
#include "storage/replicator.h"

#include <algorithm>
#include <utility>

namespace kdfs::storage {

Result<Replicator::Member> Replicator::find_reader(ChainId chain, uint64_t version) {
    KDFS_TRY_ASSIGN(const pb::Chain* found, find_chain(chain, version));
    auto readers = mutant("read_from_any_member") ? write_path(*found) : serving_members(*found);
    for (TargetId target : readers) {
        ChunkStore* local = store(target);
        if (local != nullptr && !local->failure()) {
            Member member;
            member.store = local;
            member.target = target;
            member.chain = chain;
            member.stint = stints_[std::pair(target, chain)];
            return member;
        }
    }
    return Error(Errc::kNotServing,
                 "storage node " + std::to_string(view_.node().value) +
                     " serves no reads of chain " + std::to_string(chain.value));
}

Task<Result<RpcReply>> Replicator::read(RpcRequest request) {
    pb::ReadRequest message;
    KDFS_CO_TRY(decode_into(message, request.body));
    ChainId chain(message.chain());
    Member member;
    KDFS_CO_TRY_ASSIGN(member, find_reader(chain, message.chain_version()));
    KDFS_CO_TRY(view_.check_session(SessionId(message.session())));
    if (message.offset() % kBlockBytes != 0 || message.offset() > kPieceBytesMax ||
        message.length() > kPieceBytesMax - message.offset()) {
        co_return Error(Errc::kInvalidArgument, "read: bad offset or length");
    }
    if (request.connection && request.connection->queued_bytes() > kReplyQueueBytesMax) {
        co_return Error(Errc::kOverloaded, "answers are not taken as fast as they are asked for");
    }
    auto admitted = co_await admit(&read_bytes_, message.length() + 1);
    if (!admitted.ok()) {
        co_return std::move(admitted).error();
    }
    ChunkKey key = key_of(message.chain(), message.chunk());
    if (pending(member.target, key) && !mutant("read_beside_pending")) {
        ChunkSlots::Ref slot(slots_, ChunkSlots::Key(member.target, key));
        TimePoint until = std::min(request.deadline, env_.now() + kPendingWaitMax);
        bool decided = co_await slot->decided.wait_until(until);
        if (!decided) {
            co_return Error(Errc::kBusy, to_string(key) + " has a write that is not decided yet");
        }
    }
    // The wait may have been long.
    KDFS_CO_TRY_ASSIGN(member, find_reader(chain, message.chain_version()));
    auto data = co_await member.store->read(key, message.offset(), message.length());
    if (!data.ok()) {
        // Between members that both have it damaged, questions would go back and forth for ever.
        bool known = damaged_.contains(std::pair(member.target, key));
        if (data.error().code == Errc::kCorrupt && (message.session() != 0 || !known)) {
            start_repair(member, key);
        }
        co_return seen_from_outside(member, data.error());
    }
    pb::ReadReply reply;
    if (data->record) {
        reply.set_version(data->record->version.value);
        reply.set_chunk_length(data->record->length);
        reply.set_checksums(pack_sums(data->sums));
    }
    co_return RpcReply(encode(reply), std::move(data->data));
}

Task<Result<RpcReply>> Replicator::sync(RpcRequest request) {
    pb::SyncRequest message;
    KDFS_CO_TRY(decode_into(message, request.body));
    ChunkStore* local = store(TargetId(message.target()));
    if (local == nullptr) {
        co_return Error(
            Errc::kNotServing,
            "target " + std::to_string(message.target()) + " is not on this node; fetch the map");
    }
    for (const pb::SyncChain& chain : message.chains()) {
        auto found = find_chain(ChainId(chain.chain()), chain.chain_version());
        if (!found.ok()) {
            co_return std::move(found).error();
        }
        pb::MemberState state = member_state(**found, TargetId(message.target()));
        if (state != pb::MEMBER_SERVING && state != pb::MEMBER_SYNCING) {
            co_return Error(Errc::kNotServing,
                            "target " + std::to_string(message.target()) +
                                " takes no writes of chain " + std::to_string(chain.chain()));
        }
    }
    Status synced;
    if (!mutant("ack_before_sync")) {
        synced = co_await local->sync();
    }
    if (!synced.ok()) {
        co_return Error(Errc::kNotServing, synced.error().detail);
    }
    co_return RpcReply(encode(pb::SyncReply()));
}

Task<Result<RpcReply>> Replicator::list_chunks(RpcRequest request) {
    pb::ListChunksRequest message;
    KDFS_CO_TRY(decode_into(message, request.body));
    TargetId target(message.target());
    ChainId chain(message.chain());
    ChunkStore* local = store(target);
    if (local == nullptr) {
        co_return Error(Errc::kNotServing,
                        "target " + std::to_string(target.value) + " is not on this node");
    }
    auto found = find_chain(chain, message.chain_version());
    if (!found.ok()) {
        co_return std::move(found).error();
    }
    ChunkStore::Range range;
    range.chain = chain;
    range.only_data = DataId(message.only_data());
    range.entries_max = message.entries_max() == 0 ? ChunkStore::kScanPage : message.entries_max();
    if (message.has_after()) {
        range.after = key_of(chain.value, message.after()).chunk;
    }
    auto page = co_await local->list(range);
    if (!page.ok()) {
        co_return std::move(page).error();
    }
    pb::ListChunksReply reply;
    reply.set_more(page->more);
    for (const ChunkStore::Listed& listed : page->chunks) {
        pb::ChunkEntry* entry = reply.add_entries();
        set_key(*entry->mutable_chunk(), listed.chunk);
        entry->set_version(listed.version.value);
        entry->set_length(listed.length);
        entry->set_digest(listed.digest);
        ChunkKey key;
        key.chain = chain;
        key.chunk = listed.chunk;
        entry->set_pending(pending(target, key));
    }
    co_return RpcReply(encode(reply));
}

// Changes of many chunks at once. The head says which, so that all members change the same ones.

class Replicator::RemoveCargo final : public Replicator::Cargo {
public:
    RemoveCargo(const pb::RemoveDataRequest& request, const std::vector<ChunkPair>& pairs)
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
        return RpcCall(MessageType::kRemoveData, encode(message_), deadline);
    }
    Task<Status> mend(TargetId, uint64_t) override {
        co_return Error(Errc::kBusy, "a removal fits on any state");
    }
    Status on_ack(const RpcReply& reply) override { return decode_into(reply_, reply.body); }
    const pb::RemoveDataReply& reply() const { return reply_; }

private:
    pb::RemoveDataRequest message_;
    pb::RemoveDataReply reply_;
};

Task<Result<std::vector<ChunkId>>> Replicator::indexes_of(const Member& member,
                                                          DataId data,
                                                          uint64_t first,
                                                          uint64_t beyond) {
    ChunkStore::Range range;
    range.chain = member.chain;
    range.only_data = data;
    range.entries_max = kRemovePage;
    if (first != 0) {
        ChunkId after;
        after.data = data;
        after.index = first - 1;
        range.after = after;
    }
    auto page = co_await member.store->list(range);
    if (!page.ok()) {
        co_return std::move(page).error();
    }
    std::vector<ChunkId> out;
    for (const ChunkStore::Listed& listed : page->chunks) {
        if (listed.chunk.index < beyond) {
            out.push_back(listed.chunk);
        }
    }
    co_return out;
}

Task<Result<std::vector<ChunkId>>> Replicator::removed_chunks(const pb::RemoveDataRequest& request,
                                                              const Member& member,
                                                              uint64_t first) {
    if (!request.forwarded()) {
        return indexes_of(member, DataId(request.data()), first, UINT64_MAX);
    }
    return named_chunks(request);
}

Task<Result<std::vector<ChunkId>>> Replicator::named_chunks(const pb::RemoveDataRequest& request) {
    std::vector<ChunkId> chunks;
    for (uint64_t index : request.indexes()) {
        ChunkId chunk;
        chunk.data = DataId(request.data());
        chunk.index = index;
        chunks.push_back(chunk);
    }
    co_return chunks;
}

// The versions that go: the head's own, which it tells the others. 0 for a damaged chunk.
Task<Result<std::vector<Replicator::ChunkPair>>> Replicator::find_versions(
    const pb::RemoveDataRequest& request,
    const Member& member,
    const std::vector<Locked>& locked) {
    std::vector<ChunkPair> pairs;
    if (request.forwarded()) {
        for (int i = 0; i < request.indexes_size(); ++i) {
            pairs.push_back(ChunkPair{request.indexes(i), request.versions(i)});
        }
        co_return pairs;
    }
    for (const Locked& one : locked) {
        auto base = co_await member.store->find(one.key);
        if (!base.ok() && base.error().code != Errc::kCorrupt) {
            co_return std::move(base).error();
        }
        uint64_t version = base.ok() && *base ? (*base)->version.value : 0;
        pairs.push_back(ChunkPair{one.key.chunk.index, version});
    }
    co_return pairs;
}

// Removes the chunks here; those of another version than the head's stay and are added to
// `missing`.
Task<Status> Replicator::remove_here(const Member& member,
                                     const std::vector<Locked>& locked,
                                     const std::vector<ChunkPair>& pairs,
                                     std::vector<uint64_t>* missing) {
    std::map<uint64_t, uint64_t> versions;
    for (const ChunkPair& pair : pairs) {
        versions[pair.index] = pair.version;
    }
    for (const Locked& one : locked) {
        auto base = co_await member.store->find(one.key);
        if (!base.ok() && base.error().code != Errc::kCorrupt) {
            co_return std::move(base).error();
        }
        RecordPtr record = base.ok() ? *base : nullptr;
        if (base.ok() && !record) {
            continue;
        }
        if ((record ? record->version.value : 0) != versions[one.key.chunk.index]) {
            missing->push_back(one.key.chunk.index);
            continue;
        }
        ChunkWrite write;
        write.kind = pb::WRITE_REMOVE;
        auto staged = co_await member.store->stage(one.key, record, std::move(write));
        if (!staged.ok()) {
            co_return std::move(staged).error();
        }
        if (record) {
            tombstones_.put(ChunkSlots::Key(member.target, one.key), *record);
        }
        KDFS_CO_TRY(member.store->commit(std::move(*staged)));
        note_whole(member.target, one.key);
    }
    co_return Status();
}

// Makes the successor's chunks what they are here. Under their locks.
Task<Status> Replicator::send_missing(const Member& member,
                                      DataId data,
                                      std::vector<uint64_t> missing) {
    for (uint64_t index : missing) {
        ChunkKey key;
        key.chain = member.chain;
        key.chunk.data = data;
        key.chunk.index = index;
        const pb::Chain* chain = view_.map()->chain(member.chain);
        TargetId next = successor(member);
        if (chain != nullptr && next) {
            KDFS_CO_TRY(co_await send_whole(member.store, next, key, chain->version(), true));
        }
    }
    co_return Status();
}

Task<Result<uint64_t>> Replicator::remove_page(const pb::RemoveDataRequest& request,
                                               const Member& member,
                                               std::vector<Locked>& locked,
                                               std::vector<uint64_t>* missing) {
    auto pairs = co_await find_versions(request, member, locked);
    if (!pairs.ok()) {
        co_return std::move(pairs).error();
    }
    RemoveCargo cargo(request, *pairs);
    Flight flight;
    flight.member = member;
    do {
        KDFS_CO_TRY(co_await forward(flight, cargo));
    } while (!has_arrived(flight));
    env_.fault_point("storage.remove.after_forward");
    KDFS_CO_TRY(co_await remove_here(member, locked, *pairs, missing));
    std::vector<uint64_t> lacking(cargo.reply().missing().begin(), cargo.reply().missing().end());
    KDFS_CO_TRY(co_await send_missing(member, DataId(request.data()), std::move(lacking)));
    co_return locked.size() - missing->size();
}

Task<Result<RpcReply>> Replicator::remove_data(RpcRequest request) {
    pb::RemoveDataRequest message;
    KDFS_CO_TRY(decode_into(message, request.body));
    bool led = !message.forwarded();
    if (message.data() == 0 || message.indexes_size() != message.versions_size() ||
        static_cast<uint64_t>(message.indexes_size()) > kRemovePage ||
        (led && message.from_index() != 0 && message.number() == 0)) {
        co_return Error(Errc::kInvalidArgument,
                        "remove: no data id, no number, or too many chunks at once");
    }
    Result<pb::RemoveDataReply> reply = Error(Errc::kBusy);
    // Members remove by version, which is safe at any time.
    if (led && message.number() != 0) {
        reply = co_await remove_once(std::move(message));
    } else {
        reply = co_await remove_all(std::move(message));
    }
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    co_return RpcReply(encode(*reply));
}

Task<Result<pb::RemoveDataReply>> Replicator::remove_once(pb::RemoveDataRequest message) {
    Member member;
    KDFS_CO_TRY_ASSIGN(
        member,
        find_writer(ChainId(message.chain()), message.chain_version(), From::kClient, TargetId()));
    RemovalLog::Key key;
    key.target = member.target;
    key.chain = member.chain;
    key.data = DataId(message.data());
    KDFS_CO_TRY_ASSIGN(std::optional<uint64_t> before, removals_.begin(key, message.number()));
    if (before) {
        pb::RemoveDataReply repeated;
        repeated.set_removed(*before);
        co_return repeated;
    }
    auto reply = co_await remove_all(std::move(message));
    std::optional<uint64_t> removed;
    if (reply.ok()) {
        removed = reply->removed();
    }
    removals_.finish(key, removed);
    co_return reply;
}

Task<Result<pb::RemoveDataReply>> Replicator::remove_all(pb::RemoveDataRequest message) {
    From from = message.forwarded() ? From::kMember : From::kClient;
    ChainId chain(message.chain());
    uint64_t first = message.from_index();
    pb::RemoveDataReply reply;
    Member member;
    for (bool more = true; more;) {
        KDFS_CO_TRY_ASSIGN(
            member,
            find_writer(chain, message.chain_version(), from, TargetId(message.target())));
        auto chunks = co_await removed_chunks(message, member, first);
        if (!chunks.ok()) {
            co_return seen_from_outside(member, chunks.error());
        }
        if (chunks->empty()) {
            break;
        }
        more = !message.forwarded() && chunks->size() == kRemovePage;
        std::vector<Locked> locked = co_await lock_chunks(member, std::move(*chunks));
        std::vector<uint64_t> missing;
        auto gone = co_await remove_page(message, member, locked, &missing);
        if (!gone.ok()) {
            co_return seen_from_outside(member, gone.error());
        }
        reply.set_removed(reply.removed() + *gone);
        for (uint64_t index : missing) {
            reply.add_missing(index);
        }
        first = locked.back().key.chunk.index + 1;
        env_.fault_point("storage.remove.after_page");
    }
    // Who asked forgets the chunks then, so they must not come back after a power cut. Also if
    // there were none: an attempt that failed may have just removed them.
    Status kept;
    if (mutant("confirm_unsynced_removal")) {
        kept = co_await member.store->flushed();
    } else {
        kept = co_await member.store->sync_removals();
    }
    if (!kept.ok()) {
        co_return seen_from_outside(member, kept.error());
    }
    co_return reply;
}

}  // namespace kdfs::storage
