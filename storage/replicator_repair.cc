// Damaged chunks, and copies that differ. See replicator.h.

#include "kdfs/base/mutant.h"
#include "kdfs/proto/wire.h"
#include "storage/replicator.h"

#include <algorithm>
#include <utility>

namespace kdfs::storage {

namespace {

void tell_repaired(LogSink& log, TargetId target, const ChunkKey& key) {
    LogEvent(log, LogLevel::kInfo, "chunk repaired")
        .with("target", target)
        .with("chunk", to_string(key));
}

}  // namespace

void Replicator::start_repair(const Member& member, const ChunkKey& key) {
    if (repairs_.size() < kRepairsMax && !stopping_ &&
        repairs_.insert(std::pair(member.target, key)).second) {
        scope_.spawn(repair_later(member, key));
    }
}

Task<void> Replicator::repair_later(Member member, ChunkKey key) {
    Status repaired = co_await repair_unlocked(member, key);
    if (repaired.ok()) {
        note_whole(member.target, key);
        tell_repaired(env_.log(), member.target, key);
    } else if (repaired.error().code == Errc::kCorrupt) {
        tell_damaged(member.target, key, repaired.error());
    } else {
        LogEvent(env_.log(), LogLevel::kWarn, "chunk not repaired")
            .with("target", member.target)
            .with("chunk", to_string(key))
            .with("cause", repaired.error().to_string());
    }
    repairs_.erase(std::pair(member.target, key));
}

void Replicator::note_damaged(TargetId target, const ChunkKey& key) {
    if (damaged_.size() < kDamagedMax) {
        damaged_.emplace(target, key);
    }
}

// One line for each chunk, as long as it stays so.
void Replicator::tell_damaged(TargetId target, const ChunkKey& key, const Error& cause) {
    size_t before = damaged_.size();
    note_damaged(target, key);
    LogEvent(env_.log(),
             damaged_.size() != before ? LogLevel::kError : LogLevel::kDebug,
             "damaged chunk that no other member has")
        .with("target", target)
        .with("chunk", to_string(key))
        .with("cause", cause.to_string())
        .with("next", "`kdfs scrub status` names its file; restore or remove that");
}

// The others that serve, those behind this member first: they have nothing pending while the lock
// is held here.
std::vector<TargetId> Replicator::repair_sources(const Member& member) const {
    const pb::Chain* chain = view_.map() ? view_.map()->chain(member.chain) : nullptr;
    std::vector<TargetId> sources;
    if (chain != nullptr) {
        sources = serving_members(*chain);
    }
    std::reverse(sources.begin(), sources.end());
    std::erase(sources, member.target);
    return sources;
}

namespace {

Error no_source(const ChunkKey& key, TargetId target) {
    return Error(Errc::kCorrupt,
                 to_string(key) + " is damaged on target " + std::to_string(target.value) +
                     " and no other member has it; restore it from a backup");
}

}  // namespace

// Takes the chunk from other serving members. Under the chunk's lock.
Task<Status> Replicator::repair(Member member, ChunkKey key) {
    auto fetched = co_await fetch_whole(member, key);
    if (!fetched.ok()) {
        co_return std::move(fetched).error();
    }
    co_return co_await replace_damaged(member, key, std::move(*fetched));
}

// The same, holding the lock only to put the chunk in its place: a member before this one may have
// a write pending that waits for the lock here, and then answers no reads.
Task<Status> Replicator::repair_unlocked(Member member, ChunkKey key) {
    auto fetched = co_await fetch_whole(member, key);
    if (!fetched.ok()) {
        co_return std::move(fetched).error();
    }
    ChunkSlots::Ref slot(slots_, ChunkSlots::Key(member.target, key));
    SemaphoreHold hold = co_await slot->mutex.lock();
    co_return co_await replace_damaged(member, key, std::move(*fetched));
}

Task<Result<Replicator::Fetched>> Replicator::fetch_whole(Member member, ChunkKey key) {
    Error last = no_source(key, member.target);
    bool damaged_there = false;
    for (TargetId source : repair_sources(member)) {
        auto fetched = co_await fetch(member, key, source, 0, kPieceBytesMax);
        if (fetched.ok()) {
            co_return fetched;
        }
        last = std::move(fetched).error();
        damaged_there = damaged_there || last.code == Errc::kCorrupt;
    }
    if (!damaged_there) {
        co_return last;
    }
    co_return co_await fetch_blocks(member, key);
}

// All members have damage, but perhaps not in the same blocks.
Task<Result<Replicator::Fetched>> Replicator::fetch_blocks(Member member, ChunkKey key) {
    Fetched out;
    for (uint64_t at = 0; at == 0 || at < out.chunk_length; at += kBlockBytes) {
        auto block = co_await fetch_block(member, key, at, out.version);
        if (!block.ok()) {
            co_return std::move(block).error();
        }
        out.version = block->version;
        out.chunk_length = block->chunk_length;
        out.data.append(block->data);
        out.sums.insert(out.sums.end(), block->sums.begin(), block->sums.end());
    }
    co_return out;
}

// Of the given version, unless that is 0.
Task<Result<Replicator::Fetched>> Replicator::fetch_block(Member member,
                                                          ChunkKey key,
                                                          uint64_t offset,
                                                          uint64_t version) {
    bool changed = false;
    auto here = co_await member.store->read(key, offset, kBlockBytes);
    if (here.ok() && here->record) {
        Fetched out;
        out.version = here->record->version.value;
        out.chunk_length = here->record->length;
        out.data = std::move(here->data);
        out.sums = std::move(here->sums);
        changed = version != 0 && out.version != version;
        if (!changed) {
            co_return out;
        }
    }
    for (TargetId source : repair_sources(member)) {
        auto there = co_await fetch(member, key, source, offset, kBlockBytes);
        if (there.ok() && (version == 0 || there->version == version)) {
            co_return there;
        }
        changed = changed || there.ok();
    }
    if (changed) {
        co_return Error(Errc::kStaleVersion, to_string(key) + " is being changed");
    }
    co_return Error(Errc::kCorrupt,
                    to_string(key) + ": block " + std::to_string(offset / kBlockBytes) +
                        " is damaged on every member; restore it from a backup");
}

Task<Result<Replicator::Fetched>> Replicator::fetch(Member member,
                                                    ChunkKey key,
                                                    TargetId source,
                                                    uint64_t offset,
                                                    uint64_t length) {
    const pb::Chain* chain = view_.map() ? view_.map()->chain(member.chain) : nullptr;
    if (chain == nullptr) {
        co_return Error(Errc::kStaleMap, "the chain is gone");
    }
    pb::ReadRequest message;
    message.set_chain(key.chain.value);
    message.set_chain_version(chain->version());
    set_key(*message.mutable_chunk(), key.chunk);
    message.set_offset(offset);
    message.set_length(static_cast<uint32_t>(length));
    RpcCall call(MessageType::kRead, encode(message), env_.now() + kRepairTimeout);
    auto answer = co_await peers_.to(view_.address_of(source)).call(std::move(call));
    if (!answer.ok()) {
        co_return std::move(answer).error();
    }
    pb::ReadReply reply;
    KDFS_CO_TRY(decode_into(reply, answer->body));
    uint64_t rest = reply.chunk_length() - std::min(reply.chunk_length(), offset);
    if (reply.version() == 0 || reply.chunk_length() > kPieceBytesMax ||
        answer->payload.size() != std::min(rest, length)) {
        co_return Error(Errc::kCorrupt, to_string(key) + " is not whole on the other member");
    }
    Fetched out;
    KDFS_CO_TRY_ASSIGN(out.sums, unpack_sums(reply.checksums(), offset, answer->payload.size()));
    KDFS_CO_TRY(check_sums(offset, answer->payload, out.sums));
    out.version = reply.version();
    out.chunk_length = reply.chunk_length();
    out.data = std::move(answer->payload);
    co_return out;
}

// Under the chunk's lock. A chunk that was changed or removed since it was found damaged stays.
Task<Status> Replicator::replace_damaged(Member member, ChunkKey key, Fetched fetched) {
    auto found = co_await member.store->find(key);
    bool unreadable = !found.ok() && found.error().code == Errc::kCorrupt;
    if (!found.ok() && !unreadable) {
        co_return std::move(found).error();
    }
    RecordPtr base = found.ok() ? *found : nullptr;
    bool same = unreadable || (base && base->version.value == fetched.version);
    if ((!in_place(member) || !same) && !mutant("repair_with_any_version")) {
        co_return Error(Errc::kStaleVersion, to_string(key) + " is being changed");
    }
    ChunkWrite write;
    write.kind = pb::WRITE_REPLACE;
    write.data = std::move(fetched.data);
    write.sums = std::move(fetched.sums);
    write.new_version = ChunkVersion(fetched.version);
    if (base) {
        write.recent = base->recent;
    }
    auto staged = co_await member.store->stage(key, base, std::move(write));
    if (!staged.ok()) {
        co_return std::move(staged).error();
    }
    KDFS_CO_TRY(co_await member.store->write_data(*staged));
    env_.fault_point("storage.repair.before_commit");
    co_return member.store->commit(std::move(*staged));
}

Task<Replicator::Checked> Replicator::check_chunk(TargetId target, ChunkKey key) {
    Checked out;
    Member member;
    member.store = stores_.at(target);
    member.target = target;
    member.chain = key.chain;
    for (int attempt = 0; attempt < kCheckAttemptsMax && !stopping_; ++attempt) {
        auto read = co_await member.store->read(key, 0, kPieceBytesMax);
        if (read.ok()) {
            out.bytes = read->record ? read->record->length : 0;
            out.outcome = Status();
            note_whole(target, key);
            if (out.damaged) {
                tell_repaired(env_.log(), target, key);
            }
            co_return out;
        }
        out.outcome = read.error();
        if (read.error().code != Errc::kCorrupt) {
            co_return out;
        }
        out.damaged = true;
        member.stint = stints_[std::pair(target, key.chain)];
        // Read once more afterwards: somebody else may have repaired or changed it meanwhile.
        Status repaired = co_await repair_unlocked(member, key);
        if (!repaired.ok()) {
            out.outcome = repaired;
            if (repaired.error().code == Errc::kCorrupt) {
                break;
            }
            co_await sleep_for(env_.scheduler(), kCheckRetryDelay);
        }
    }
    if (!stopping_) {
        tell_damaged(target, key, out.outcome.error());
    }
    co_return out;
}

Task<Result<Replicator::Levelled>> Replicator::level_chunk(TargetId from,
                                                           TargetId to,
                                                           ChunkKey key,
                                                           uint64_t chain_version) {
    // Who holds the head's lock has every change of the chunk decided, on all members.
    ChunkSlots::Ref slot(slots_, ChunkSlots::Key(from, key));
    SemaphoreHold hold = co_await slot->mutex.lock();
    KDFS_CO_TRY_ASSIGN(const pb::Chain* chain, find_chain(key.chain, chain_version));
    if (head_of(*chain) != from || member_state(*chain, to) != pb::MEMBER_SERVING) {
        co_return Error(Errc::kStaleMap, "the chain changed");
    }
    ChunkStore* store = stores_.at(from);
    auto ours = co_await store->find(key);
    if (!ours.ok()) {
        co_return std::move(ours).error();
    }
    auto theirs = co_await ask_entry(to, key, chain_version);
    if (!theirs.ok()) {
        co_return std::move(theirs).error();
    }
    uint64_t version = *ours ? (*ours)->version.value : 0;
    bool same_bytes =
        !*ours || ((*ours)->digest() == theirs->digest() && (*ours)->length == theirs->length());
    if (version == theirs->version() && same_bytes) {
        co_return Levelled::kEqual;
    }
    bool newer = *ours && version >= theirs->version();
    // An entry without a version: the other has the chunk, but cannot read its record.
    bool unreadable = theirs->has_chunk() && theirs->version() == 0;
    LogEvent(env_.log(),
             LogLevel::kError,
             unreadable ? "copy of a chunk cannot be read" : "copies of a chunk differ")
        .with("chunk", to_string(key))
        .with("target", from)
        .with("version", version)
        .with("other_target", to)
        .with("other_version", theirs->version())
        .with("next", newer ? "it is copied to the other" : "both stay; see `kdfs scrub --help`");
    if (!newer) {
        co_return Levelled::kKept;
    }
    KDFS_CO_TRY(co_await send_whole(store, to, key, chain_version, true));
    co_return Levelled::kCopied;
}

}  // namespace kdfs::storage
