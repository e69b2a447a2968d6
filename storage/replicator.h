#pragma once

#include "kdfs/rpc/rpc.h"
#include "kdfs/rt/env.h"
#include "kdfs/rt/sync.h"
#include "storage/chunk_messages.h"
#include "storage/chunk_slots.h"
#include "storage/chunk_store.h"
#include "storage/cluster_view.h"
#include "storage/peer_pool.h"
#include "storage/refusals.h"
#include "storage/removal_log.h"
#include "storage/tombstones.h"

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::storage {

// The chain protocol: what this daemon's targets do with requests for their chunks. See
// docs/architecture.md, "Chain replication". `env`, `view`, `peers` and the stores outlive it.
//
// A change holds its chunk's lock from the check of the base version until it is decided. A member
// stages it, marks the chunk pending, sends it to its successor while it writes its own blocks,
// and commits when the successor has answered that it has committed. Once sent, a change is never
// given up while the successor may have it: it is sent again until it is answered, also to another
// successor under a newer map, or this member finds itself last. Only two things end it otherwise:
// a refusal that says for sure that nobody further down has it, and the loss of this member's place
// in the chain (its stint), after which resync decides. That retry is bounded by the membership: a
// successor that does not answer loses its lease and leaves the chain.
//
// A forwarded write waits only for members further down, so admission is per position in the
// chain: waiting there can make no circle.
class Replicator {
public:
    // Payload bytes under way, by position in the chain: head, second, the rest.
    static constexpr uint64_t kHeadBytesMax = 64 * MiB;
    static constexpr uint64_t kSecondBytesMax = 48 * MiB;
    static constexpr uint64_t kRestBytesMax = 16 * MiB;
    static constexpr uint64_t kReadBytesMax = 64 * MiB;
    static constexpr uint64_t kAdmissionQueueMax = 256;
    static constexpr uint64_t kReplyQueueBytesMax = 64 * MiB;
    static constexpr Duration kForwardTimeout = std::chrono::seconds(5);
    static constexpr Duration kForwardRetryDelay = std::chrono::milliseconds(30);
    static constexpr Duration kPendingWaitMax = std::chrono::seconds(10);
    static constexpr Duration kRepairTimeout = std::chrono::seconds(2);
    static constexpr size_t kRepairsMax = 16;
    static constexpr size_t kDamagedMax = 1024;
    // Of these, named in a heartbeat.
    static constexpr size_t kDamagedNamed = 8;
    static constexpr int kCheckAttemptsMax = 4;
    static constexpr Duration kCheckRetryDelay = std::chrono::milliseconds(500);
    static constexpr uint64_t kRoomShare = 16;
    static constexpr uint64_t kRemovePage = 256;

    Replicator(Env& env, ClusterView& view, PeerPool& peers);
    void add_target(ChunkStore& store);
    ChunkStore* store(TargetId target) const;

    Task<Result<RpcReply>> write(RpcRequest request);
    Task<Result<RpcReply>> read(RpcRequest request);
    Task<Result<RpcReply>> sync(RpcRequest request);
    Task<Result<RpcReply>> remove_data(RpcRequest request);
    Task<Result<RpcReply>> clone_data(RpcRequest request);
    Task<Result<RpcReply>> list_chunks(RpcRequest request);

    // To be called for each new map, before it is in `view`.
    void before_map(const ClusterMap* old_map, const ClusterMap& new_map);
    // The newest epoch by which everything this daemon does goes: changes of sessions that it
    // fences and that were already under way are decided.
    Epoch acted_epoch();

    // Resync: makes the successor's chunk what this member's is. Takes the chunk's lock. A chunk
    // that is damaged here is first fetched from another serving member; kCorrupt if none has it,
    // and describe() counts it. kStaleMap if `chain_version` is no longer the chain's.
    Task<Status> push_chunk(TargetId from, TargetId to, ChunkKey key, uint64_t chain_version);
    // Reads a local chunk and checks it. A damaged one is repaired from another serving member; if
    // none has it whole, describe() names it from then on, until it is written anew or removed.
    struct Checked {
        uint64_t bytes = 0;
        bool damaged = false;
        Status outcome;  // ok: the chunk is whole by now
    };
    Task<Checked> check_chunk(TargetId target, ChunkKey key);
    // What level_chunk() found. kKept: they differ, and what this member has is older or not there;
    // to copy it could destroy the only good copy.
    enum class Levelled { kEqual, kCopied, kKept };
    // For the head `from`: compares its chunk with that of the serving member `to` while nothing is
    // under way to it, and makes the other's equal.
    Task<Result<Levelled>> level_chunk(TargetId from,
                                       TargetId to,
                                       ChunkKey key,
                                       uint64_t chain_version);
    // Remembers a chunk that was found damaged before, and that nobody has whole.
    void note_damaged(TargetId target, const ChunkKey& key);

    // What the target has, as a heartbeat tells it. A target that had no room for what it lacks
    // counts as full until a sixteenth of it more is free.
    void describe(pb::TargetReport& report);
    bool pending(TargetId target, const ChunkKey& key) const {
        return slots_.pending(ChunkSlots::Key(target, key));
    }

    // Ends waits for other members with an error.
    void begin_stop();
    // After every request has been answered.
    Task<void> stop();

private:
    // A local member of a chain, as the request's checks found it.
    struct Member {
        ChunkStore* store = nullptr;
        TargetId target;
        ChainId chain;
        uint64_t stint = 0;
        size_t position = 0;
    };
    // Something on its way down a chain.
    struct Flight {
        Member member;
        TargetId acked;  // the successor that has it
        uint64_t acked_version = 0;
        bool ever_acked = false;
        bool insists = false;  // a refusal for want of room does not end it
    };
    // What travels: how to send it, what an answer means.
    class Cargo {
    public:
        virtual ~Cargo() = default;
        // Of what is made next: whether the successor may refuse it for good.
        virtual void insist(bool) {}
        virtual RpcCall make(const pb::Chain& chain, TargetId successor, TimePoint deadline) = 0;
        // The successor's state does not fit: mend it before the next attempt.
        virtual Task<Status> mend(TargetId successor, uint64_t chain_version) = 0;
        virtual Status on_ack(const RpcReply& reply) = 0;
    };
    struct WriteJob;
    class WriteCargo;
    class RemoveCargo;
    class CloneCargo;
    struct Locked {
        ChunkSlots::Ref slot;
        SemaphoreHold hold;
        ChunkSlots::Pending pending;
        ChunkKey key;
    };
    // A chunk of the file in question, and its version at the head.
    struct ChunkPair {
        uint64_t index = 0;
        uint64_t version = 0;
    };

    enum class From { kClient, kMember };
    Result<const pb::Chain*> find_chain(ChainId chain, uint64_t version);
    Error seen_from_outside(const Member& member, Error error) const;
    Result<Member> find_writer(ChainId chain, uint64_t version, From from, TargetId target);
    Result<Member> find_reader(ChainId chain, uint64_t version);
    bool in_place(const Member& member) const;
    Task<Result<SemaphoreHold>> admit(Semaphore* semaphore, uint64_t bytes);
    Semaphore& admission(size_t position);

    Task<Result<pb::WriteReply>> locked_write(WriteJob& job, ChunkSlots::Slot& slot);
    Task<Status> check_base(WriteJob& job);
    bool is_duplicate(const WriteJob& job) const;
    bool fits_on_base(const WriteJob& job) const;
    bool takes_nothing(const WriteJob& job) const;
    void remember_nothing_taken(const WriteJob& job);
    Status check_order(const WriteJob& job) const;
    ChunkVersion next_version(const WriteJob& job) const;
    Task<Result<pb::ChunkEntry>> ask_entry(TargetId of, ChunkKey key, uint64_t chain_version);
    Task<Result<StagedWrite>> stage(WriteJob& job);
    Task<Result<pb::WriteReply>> repeated_write(WriteJob& job);
    Task<Status> write_and_forward(WriteJob& job,
                                   StagedWrite& staged,
                                   Flight* flight,
                                   Cargo& cargo);
    static Task<Status> finish(const WriteJob& job);

    // Until every member further down has the cargo. See the class comment.
    Task<Status> forward(Flight& flight, Cargo& cargo);
    Task<Status> send_once(Flight& flight, Cargo& cargo, TargetId successor);
    bool has_arrived(const Flight& flight) const;
    TargetId successor(const Member& member) const;

    // Makes the chunk at `to` what it is here; with `sync` on its stable storage, too.
    Task<Status> send_whole(ChunkStore* store,
                            TargetId to,
                            ChunkKey key,
                            uint64_t chain_version,
                            bool sync);
    // A chunk, or a part of one, as a member has it.
    struct Fetched {
        uint64_t version = 0;
        uint64_t chunk_length = 0;
        BufferChain data;
        std::vector<uint64_t> sums;
    };
    std::vector<TargetId> repair_sources(const Member& member) const;
    Task<Status> repair(Member member, ChunkKey key);
    Task<Status> repair_unlocked(Member member, ChunkKey key);
    Task<void> repair_later(Member member, ChunkKey key);
    // From one member.
    Task<Result<Fetched>> fetch(Member member,
                                ChunkKey key,
                                TargetId source,
                                uint64_t offset,
                                uint64_t length);
    // Wherever it is whole, or else put together from blocks that are.
    Task<Result<Fetched>> fetch_whole(Member member, ChunkKey key);
    Task<Result<Fetched>> fetch_blocks(Member member, ChunkKey key);
    Task<Result<Fetched>> fetch_block(Member member,
                                      ChunkKey key,
                                      uint64_t offset,
                                      uint64_t version);
    Task<Status> replace_damaged(Member member, ChunkKey key, Fetched fetched);
    void note_no_room(const WriteJob& job);
    void remember_refusal(const WriteJob& job);
    Status check_not_refused(const WriteJob& job) const;
    void start_repair(const Member& member, const ChunkKey& key);
    void tell_damaged(TargetId target, const ChunkKey& key, const Error& cause);
    void note_whole(TargetId target, const ChunkKey& key) {
        damaged_.erase(std::pair(target, key));
    }

    Task<std::vector<Locked>> lock_chunks(const Member& member, std::vector<ChunkId> chunks);
    Task<Result<pb::RemoveDataReply>> remove_once(pb::RemoveDataRequest request);
    Task<Result<pb::RemoveDataReply>> remove_all(pb::RemoveDataRequest request);
    Task<Result<std::vector<ChunkId>>> removed_chunks(const pb::RemoveDataRequest& request,
                                                      const Member& member,
                                                      uint64_t first);
    static Task<Result<std::vector<ChunkId>>> named_chunks(const pb::RemoveDataRequest& request);
    Task<Result<std::vector<ChunkPair>>> find_versions(const pb::RemoveDataRequest& request,
                                                       const Member& member,
                                                       const std::vector<Locked>& locked);
    Task<Result<uint64_t>> remove_page(const pb::RemoveDataRequest& request,
                                       const Member& member,
                                       std::vector<Locked>& locked,
                                       std::vector<uint64_t>* missing);
    Task<Status> remove_here(const Member& member,
                             const std::vector<Locked>& locked,
                             const std::vector<ChunkPair>& pairs,
                             std::vector<uint64_t>* missing);
    Task<Status> send_missing(const Member& member, DataId data, std::vector<uint64_t> missing);
    // Up to kRemovePage of them.
    Task<Result<std::vector<ChunkId>>> indexes_of(const Member& member,
                                                  DataId data,
                                                  uint64_t first,
                                                  uint64_t beyond);
    Task<Result<std::vector<ChunkPair>>> clone_pairs(const pb::CloneDataRequest& request,
                                                     const Member& member,
                                                     uint64_t first);
    Task<Status> clone_here(const pb::CloneDataRequest& request,
                            const Member& member,
                            const std::vector<ChunkPair>& pairs,
                            std::vector<uint64_t>* missing);
    Task<Result<uint64_t>> clone_page(const pb::CloneDataRequest& request,
                                      const Member& member,
                                      std::vector<ChunkPair> pairs,
                                      std::vector<uint64_t>* missing);

    Env& env_;
    ClusterView& view_;
    PeerPool& peers_;
    std::map<TargetId, ChunkStore*> stores_;
    ChunkSlots slots_;
    Tombstones tombstones_;
    Refusals refusals_;
    RemovalLog removals_;
    // How often a member lost its place, or may have.
    std::map<std::pair<TargetId, ChainId>, uint64_t> stints_;
    // Sessions of changes under way.
    std::multiset<SessionId> writers_;
    Epoch acted_epoch_;
    std::set<std::pair<TargetId, ChunkKey>> repairs_;
    // Targets without room, and the bytes they had free when that was noticed.
    std::map<TargetId, uint64_t> full_;
    // Chunks that are damaged here and could not be had from another member.
    std::set<std::pair<TargetId, ChunkKey>> damaged_;
    Semaphore head_bytes_{kHeadBytesMax};
    Semaphore second_bytes_{kSecondBytesMax};
    std::array<Semaphore, 6> rest_bytes_{Semaphore(kRestBytesMax),
                                         Semaphore(kRestBytesMax),
                                         Semaphore(kRestBytesMax),
                                         Semaphore(kRestBytesMax),
                                         Semaphore(kRestBytesMax),
                                         Semaphore(kRestBytesMax)};
    Semaphore read_bytes_{kReadBytesMax};
    bool stopping_ = false;
    TaskScope io_scope_;
    TaskScope scope_;
};

}  // namespace kdfs::storage
