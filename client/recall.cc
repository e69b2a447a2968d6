// Leases that go: what FileClient does when the server asks for them back, or forgets the session.

#include "client/file_client.h"
#include "kdfs/base/mutant.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace kdfs::client {
namespace {

// In an OpenSessionRequest: the field's number, its length, and what it has.
size_t bytes_of(const pb::HeldLease& held) { return 2 + held.ByteSizeLong(); }

// The answer of who has nothing under the lease that is asked back.
pb::ReleaseOne nothing_held(const pb::RecallRequest& request, bool still_open) {
    pb::ReleaseOne item;
    item.set_ino(request.ino());
    item.set_keep(request.keep());
    item.set_lease_seq(request.lease_seq());
    item.set_still_open(still_open);
    return item;
}

}  // namespace

Task<pb::RecallReply> FileClient::recall(pb::RecallRequest request) {
    InodeId ino(request.ino());
    pb::RecallReply reply;
    InodeRef inode = cache_.find(ino);
    if (!inode) {
        if (asking_ != 0) {
            // The grant may still be on its way here, and with it an open file.
            cache_.cap_absent(ino, request.lease_seq(), request.keep());
        }
        if (!open_asks_.empty()) {
            suspect(ino, request.lease_seq());
        }
        *reply.mutable_released() = nothing_held(request, !open_asks_.empty());
        co_return reply;
    }
    if (request.lease_seq() < inode->lease_seq) {
        // Late: the lease was given anew since. The server asks for that one if it needs it.
        bool open = inode->opens != 0 || !open_asks_.empty();
        *reply.mutable_released() = release_item(*inode, request.keep(), open);
        reply.mutable_released()->set_lease_seq(request.lease_seq());
        co_return reply;
    }
    bool was_exclusive = inode->lease == pb::LEASE_EXCLUSIVE;
    uint64_t generation = session_.generation();
    if (was_exclusive || inode->giving_back != 0) {
        inode->giving_back = std::max(inode->giving_back, request.lease_seq());
    }
    cache_.cap(*inode, request.lease_seq(), request.keep());
    // From here on operations ask the server, so nothing new gets dirty.
    if (S_ISDIR(inode->attr.mode())) {
        cache_.drop_names(*inode);
        if (invalidator_ != nullptr) {
            invalidator_->names();
        }
    }
    if ((was_exclusive || inode->dirty()) && !mutant("return_lease_before_data")) {
        co_await await_own_change(inode);
        ++inode->forces;
        co_await drain(inode);
        --inode->forces;
    }
    env_.fault_point("client.recall.before_answer");
    if (session_.generation() != generation) {
        // The lease went with its session. What is known now belongs to the next one, which the
        // server does not know as a writer of the file before it is asked.
        *reply.mutable_released() = nothing_held(request, true);
        co_return reply;
    }
    drop_inode_cache(*inode);
    if (invalidator_ != nullptr && request.keep() == pb::LEASE_NONE) {
        invalidator_->attributes(ino);
    }
    // The lease may have been given anew meanwhile, and asked back: that recall is not done.
    if (inode->giving_back <= request.lease_seq()) {
        inode->giving_back = 0;
    }
    *reply.mutable_released() = returned(*inode, request, was_exclusive);
    co_return reply;
}

// Waits for a truncation or removal of our own that is under way: once the server has done it, what
// is dirty must not reach the chunks any more. The holder of the exclusive lease waits for nobody
// when it truncates. A removal may wait for another client, and that one for this recall: then it
// has not happened yet, and after kOwnChangeWait what is dirty is written.
Task<void> FileClient::await_own_change(InodeRef inode) {
    TimePoint until = env_.now() + kOwnChangeWait;
    while (inode->dirty() && inode->holds != 0 && (inode->cuts != 0 || env_.now() < until)) {
        if (inode->cuts != 0) {
            co_await inode->flight_done.wait();
        } else {
            co_await inode->flight_done.wait_until(until);
        }
    }
}

// The answer to a recall, once everything dirty is in the chunks.
pb::ReleaseOne FileClient::returned(Inode& inode,
                                    const pb::RecallRequest& request,
                                    bool was_exclusive) {
    // An answer under way may open the file.
    bool open = inode.opens != 0 || !open_asks_.empty();
    if (open && inode.opens == 0) {
        suspect(inode.ino, request.lease_seq());
    }
    pb::ReleaseOne item = release_item(inode, request.keep(), open);
    item.set_lease_seq(request.lease_seq());
    if (inode.lease > request.keep()) {
        // Given anew meanwhile: the server asks again for that one.
        return item;
    }
    inode.server_open = open;
    inode.server_writes = open && (inode.server_writes || was_exclusive);
    if (inode.meta_dirty()) {
        // This answer may get lost: it is told once more if nothing shows that it arrived.
        inode.meta_dirty_since = env_.now();
        meta_dirty_.emplace(inode.ino, cache_.find(inode.ino));
    }
    return item;
}

// What is to be said of an inode when the session is resumed.
std::optional<pb::HeldLease> FileClient::claim(const Inode& inode) {
    // A file without a name lives, with what is dirty of it, until the server is told.
    bool unsure = inode.attr.nlink() == 0 || inode.open_asks != 0;
    bool open = inode.opens != 0 || (inode.server_open && unsure);
    bool nothing = inode.lease == pb::LEASE_NONE && !open;
    if (nothing && !inode.meta_dirty() && inode.giving_back == 0) {
        return {};
    }
    pb::HeldLease one;
    one.set_ino(inode.ino.value);
    one.set_mode(inode.giving_back != 0 ? pb::LEASE_EXCLUSIVE : inode.lease);
    one.set_open(open);
    one.set_lease_seq(inode.lease_seq);
    one.set_cut(inode.attr.cut());
    one.set_change(inode.attr.change());
    if (inode.size_dirty) {
        one.set_size(inode.attr.size());
    }
    if (inode.times_dirty) {
        one.set_mtime(inode.attr.mtime());
    }
    return one;
}

std::vector<pb::HeldLease> FileClient::held(size_t bytes_max) {
    std::map<InodeId, pb::HeldLease> claims;
    size_t bytes = 0;
    for (const InodeRef& inode : cache_.oldest_first()) {
        if (auto one = claim(*inode)) {
            bytes += bytes_of(*one);
            claims.emplace(inode->ino, std::move(*one));
        }
    }
    // What nobody has open first: it is only asked for again. A file that the server does not know
    // to be open goes with its last name.
    size_t all = claims.size();
    for (bool open : {false, true}) {
        for (const InodeRef& inode : cache_.oldest_first()) {
            auto found = claims.find(inode->ino);
            bool asked = inode->giving_back != 0 || inode->open_asks != 0;
            bool may_go = !inode->dirty() && !inode->meta_dirty() && !asked;
            if (bytes > bytes_max && found != claims.end() && may_go &&
                found->second.open() == open) {
                bytes -= bytes_of(found->second);
                claims.erase(found);
                give_up(*inode);
            }
        }
    }
    if (claims.size() < all) {
        LogEvent(env_.log(), LogLevel::kWarn, "leases given up to resume the session")
            .with("count", all - claims.size())
            .with("kept", claims.size())
            .with("next", "smaller --cache-inodes");
    }
    std::vector<pb::HeldLease> out;
    for (auto& [ino, one] : claims) {
        if (one.open()) {
            // Known once the server answers, also if it refuses the lease.
            cache_.find(ino)->server_open = true;
        }
        out.push_back(std::move(one));
    }
    return out;
}

// The server will not hear of the inode again: it takes the lease and any open file for gone.
void FileClient::give_up(Inode& inode) {
    bool directory = !inode.names.empty();
    cache_.cap(inode, inode.lease_seq, pb::LEASE_NONE);
    drop_inode_cache(inode);
    inode.server_open = false;
    inode.server_writes = false;
    if (invalidator_ != nullptr) {
        invalidator_->attributes(inode.ino);
        if (directory) {
            invalidator_->names();
        }
    }
}

void FileClient::suspended() {
    if (invalidator_ == nullptr) {
        return;
    }
    for (const InodeRef& inode : cache_.sorted()) {
        if (inode->lease != pb::LEASE_NONE) {
            invalidator_->attributes(inode->ino);
        }
    }
    invalidator_->names();
}

void FileClient::resumed(const std::vector<uint64_t>& refused) {
    size_t paths_told = 0;
    for (uint64_t ino : refused) {
        InodeRef inode = cache_.find(InodeId(ino));
        if (inode) {
            lose_lease(*inode, paths_told);
        }
    }
    if (!refused.empty() && invalidator_ != nullptr) {
        invalidator_->names();
    }
}

void FileClient::lost() {
    size_t paths_told = 0;
    for (const InodeRef& inode : cache_.sorted()) {
        lose_lease(*inode, paths_told);
        inode->server_open = false;
        inode->server_writes = false;
        inode->lease_seq = 0;
        inode->cap_seq = 0;
    }
    if (invalidator_ != nullptr) {
        invalidator_->names();
    }
    for (const Release& release : releases_) {
        told(release);
    }
    releases_.clear();
    suspects_.clear();
}

// The lease went without being asked back: what was kept under it is gone.
void FileClient::lose_lease(Inode& inode, size_t& paths_told) {
    if (inode.lease == pb::LEASE_NONE && !inode.dirty() && !inode.meta_dirty()) {
        return;
    }
    // What was told in an answer to a recall is the server's to keep.
    bool told = inode.lease != pb::LEASE_EXCLUSIVE;
    if (inode.dirty() || (inode.size_dirty && !told)) {
        std::string what = "inode " + std::to_string(inode.ino.value) +
                           ": unwritten data was lost with the session's lease";
        LogEvent(env_.log(), LogLevel::kError, "data lost")
            .with("path", paths_told < kPathsToldMax ? cache_.known_path(inode.ino) : "")
            .with("inode", inode.ino)
            .with("bytes", inode.buffer ? inode.buffer->bytes() : 0)
            .with("cause", "the metadata server took the lease back while it could not be reached");
        ++paths_told;
        if (!mutant("lose_data_silently")) {
            add_write_error(inode, Error(Errc::kLostData, std::move(what)));
        }
    }
    forget_dirty(inode, 0);
    inode.giving_back = 0;
    inode.lease = pb::LEASE_NONE;
    inode.unwritten = false;
    inode.size_dirty = false;
    inode.times_dirty = false;
    meta_dirty_.erase(inode.ino);
    drop_inode_cache(inode);
    if (invalidator_ != nullptr) {
        invalidator_->attributes(inode.ino);
    }
}

}  // namespace kdfs::client
