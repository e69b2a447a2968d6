// Leases that go: what FileClient does when the server asks for them back, or forgets the session.

#include "client/file_client.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace kdfs::client {

Task<pb::RecallReply> FileClient::recall(pb::RecallRequest request) {
    InodeId ino(request.ino());
    pb::RecallReply reply;
    InodeRef inode = cache_.find(ino);
    if (!inode) {
        if (asking_ != 0) {
            // The grant may still be on its way here, and with it an open file.
            cache_.cap_absent(ino, request.lease_seq(), request.keep());
        }
        if (opening_ != 0) {
            suspects_[ino] = request.lease_seq();
            wake_background_.set();
        }
        pb::ReleaseOne& item = *reply.mutable_released();
        item.set_ino(ino.value);
        item.set_keep(request.keep());
        item.set_lease_seq(request.lease_seq());
        item.set_still_open(opening_ != 0);
        co_return reply;
    }
    bool was_exclusive = inode->lease == pb::LEASE_EXCLUSIVE;
    cache_.cap(*inode, request.lease_seq(), request.keep());
    // From here on operations ask the server, so nothing new gets dirty.
    if (S_ISDIR(inode->attr.mode())) {
        cache_.drop_names(*inode);
        if (invalidator_ != nullptr) {
            invalidator_->names();
        }
    }
    if (was_exclusive || inode->dirty()) {
        ++inode->forces;
        co_await drain(inode);
        --inode->forces;
    }
    drop_inode_cache(*inode);
    if (invalidator_ != nullptr && request.keep() == pb::LEASE_NONE) {
        invalidator_->attributes(ino);
    }
    *reply.mutable_released() = returned(*inode, request, was_exclusive);
    co_return reply;
}

// The answer to a recall, once everything dirty is in the chunks.
pb::ReleaseOne FileClient::returned(Inode& inode,
                                    const pb::RecallRequest& request,
                                    bool was_exclusive) {
    // An answer under way may open the file.
    bool open = inode.opens != 0 || opening_ != 0;
    if (open && inode.opens == 0) {
        suspects_[inode.ino] = request.lease_seq();
        wake_background_.set();
    }
    pb::ReleaseOne item = release_item(inode, request.keep(), open);
    item.set_lease_seq(request.lease_seq());
    if (inode.lease > request.keep()) {
        // Given anew meanwhile: the server asks again for that one.
        return item;
    }
    // Only what the server does not know: a truncation of our own may be under way, whose answer
    // was overtaken by the recall.
    if (was_exclusive && item.has_size()) {
        inode.last_return = item;
    } else if (!item.has_size() && inode.last_return.lease_seq() == request.lease_seq()) {
        // Asked twice: the first answer may have got lost.
        item.set_size(inode.last_return.size());
        item.set_mtime(inode.last_return.mtime());
    }
    inode.server_open = open;
    inode.server_writes = open && (inode.server_writes || was_exclusive);
    inode.size_dirty = false;
    inode.times_dirty = false;
    meta_dirty_.erase(inode.ino);
    return item;
}

std::vector<pb::HeldLease> FileClient::held() {
    std::vector<pb::HeldLease> out;
    for (const InodeRef& inode : cache_.sorted()) {
        bool returning = returning_.contains(inode->ino);
        if (inode->lease == pb::LEASE_NONE && inode->opens == 0 && !returning) {
            continue;
        }
        pb::HeldLease one;
        one.set_ino(inode->ino.value);
        one.set_mode(inode->lease);
        one.set_open(inode->opens != 0);
        one.set_size(inode->attr.size());
        one.set_lease_seq(inode->lease_seq);
        auto back = returning_.find(inode->ino);
        if (back != returning_.end() && back->second.lease_seq() == inode->lease_seq) {
            one.set_mode(pb::LEASE_EXCLUSIVE);
            one.set_size(back->second.size());
        }
        out.push_back(std::move(one));
    }
    return out;
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
    for (uint64_t ino : refused) {
        InodeRef inode = cache_.find(InodeId(ino));
        // One on its way back is refused when it has arrived already.
        if (inode && !returning_.contains(inode->ino)) {
            lose_lease(*inode);
        }
    }
    if (!refused.empty() && invalidator_ != nullptr) {
        invalidator_->names();
    }
}

void FileClient::lost() {
    for (const InodeRef& inode : cache_.sorted()) {
        lose_lease(*inode);
        inode->server_open = false;
        inode->server_writes = false;
        inode->lease_seq = 0;
        inode->cap_seq = 0;
    }
    if (invalidator_ != nullptr) {
        invalidator_->names();
    }
    releases_.clear();
    returning_.clear();
}

// The lease went without being asked back: what was kept under it is gone.
void FileClient::lose_lease(Inode& inode) {
    if (inode.lease == pb::LEASE_NONE && !inode.dirty() && !inode.meta_dirty()) {
        return;
    }
    if (inode.dirty() || inode.size_dirty) {
        std::string what = "inode " + std::to_string(inode.ino.value) +
                           ": unwritten data was lost with the session's lease";
        LogEvent(env_.log(), LogLevel::kError, "data lost")
            .with("inode", inode.ino)
            .with("bytes", inode.buffer ? inode.buffer->bytes() : 0)
            .with("cause", "the metadata server took the lease back while it could not be reached");
        inode.write_error = Error(Errc::kLostData, std::move(what));
    }
    forget_dirty(inode);
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
