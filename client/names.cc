// Names: what FileClient does with directories.

#include "client/file_client.h"
#include "client/hold.h"

#include <sys/stat.h>

#include <utility>

namespace kdfs::client {
namespace {

bool is_directory(const pb::Attr& attr) { return S_ISDIR(attr.mode()); }

Error no_such_name(InodeId parent, const std::string& name) {
    return {Errc::kNotFound, "no '" + name + "' in directory " + std::to_string(parent.value)};
}

}  // namespace

bool FileClient::cached_lookup(InodeId parent, const std::string& name, const pb::Attr*& attr) {
    if (name.size() > kNameBytesMax) {
        return false;  // Too long, which the server says, is not the same as absent.
    }
    InodeRef directory = cache_.find(parent);
    if (!directory || !usable(*directory, pb::LEASE_READ) || name.size() > kNameBytesMax) {
        return false;
    }
    auto found = directory->names.find(name);
    if (found == directory->names.end()) {
        attr = nullptr;
        return directory->names_complete;
    }
    cache_.touch(*directory);
    if (!found->second) {
        attr = nullptr;
        return true;
    }
    attr = cached_attr(found->second);
    return attr != nullptr;
}

bool FileClient::name_cacheable(InodeId parent, const std::string& name, InodeId ino) {
    InodeRef directory = cache_.find(parent);
    if (!directory || !usable(*directory, pb::LEASE_READ)) {
        return false;
    }
    auto found = directory->names.find(name);
    if (found == directory->names.end()) {
        return !ino && directory->names_complete;
    }
    return found->second == ino;
}

uint64_t FileClient::names_epoch(InodeId directory) { return cache_.get(directory)->names_epoch; }

// Remembers what an answer said, unless something happened to the directory since `epoch`.
void FileClient::remember_name(Inode& directory,
                               uint64_t epoch,
                               const std::string& name,
                               InodeId ino) {
    if (directory.lease != pb::LEASE_NONE && directory.names_epoch == epoch) {
        cache_.set_name(directory, name, ino);
    }
}

// This client changed what `name` is.
void FileClient::own_change(InodeId parent, const std::string& name, InodeId ino) {
    InodeRef directory = cache_.find(parent);
    if (!directory) {
        return;
    }
    // Answers under way may be older than the change.
    cache_.outdate_names(*directory);
    if (directory->lease != pb::LEASE_NONE) {
        cache_.set_name(*directory, name, ino);
    }
}

Task<Result<pb::Attr>> FileClient::lookup(InodeId parent, std::string name) {
    if (name.size() > kNameBytesMax) {
        // The listing of a directory knows nothing of names that cannot exist.
        co_return Error(Errc::kNameTooLong,
                        "a name has " + std::to_string(name.size()) + " bytes, at most " +
                            std::to_string(kNameBytesMax) + " are possible");
    }
    const pb::Attr* known = nullptr;
    if (cached_lookup(parent, name, known)) {
        if (known == nullptr) {
            co_return no_such_name(parent, name);
        }
        co_return *known;
    }
    InodeRef directory = cache_.get(parent);
    uint64_t epoch = directory->names_epoch;
    pb::MetaRequest request;
    pb::Lookup& op = *request.mutable_lookup();
    op.set_parent(parent.value);
    op.set_name(name);
    op.set_want(pb::LEASE_READ);
    op.set_want_parent(pb::LEASE_READ);
    op.set_want_negative(true);
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    if (reply->attr().ino() == 0) {
        remember_name(*directory, epoch, name, InodeId());
        co_return no_such_name(parent, name);
    }
    InodeRef child = adopt(reply->attr());
    remember_name(*directory, epoch, name, child->ino);
    co_return child->attr;
}

Task<Result<pb::MetaReply>> FileClient::create_call(pb::Create op, OpenAsk* ask) {
    InodeId parent(op.parent());
    std::string name = op.name();
    pb::MetaRequest request;
    op.set_want_parent(pb::LEASE_READ);
    *request.mutable_create() = std::move(op);
    auto reply = co_await call(std::move(request), ask);
    if (!reply.ok()) {
        InodeRef directory = cache_.find(parent);
        if (directory) {
            cache_.forget_name(*directory, name);
        }
        co_return std::move(reply).error();
    }
    co_return reply;
}

Task<Result<Opened>> FileClient::create(pb::Create op) {
    InodeId parent(op.parent());
    std::string name = op.name();
    op.set_open(true);
    op.set_want(pb::LEASE_EXCLUSIVE);
    OpenAsk ask(*this, nullptr);
    auto reply = co_await create_call(std::move(op), &ask);
    if (!reply.ok()) {
        ask.end();
        co_return std::move(reply).error();
    }
    InodeRef inode = adopt(reply->attr());
    inode->meta_synced = false;
    inode->unwritten = reply->created() && inode->lease == pb::LEASE_EXCLUSIVE;
    own_change(parent, name, inode->ino);
    Opened opened = add_open(std::move(inode), true);
    ask.end();
    co_return opened;
}

Task<Result<pb::Attr>> FileClient::make(pb::Create op) {
    InodeId parent(op.parent());
    std::string name = op.name();
    op.set_exclusive(true);
    op.set_want(pb::LEASE_READ);
    auto reply = co_await create_call(std::move(op), nullptr);
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    InodeRef inode = adopt(reply->attr());
    if (is_directory(inode->attr) && inode->lease != pb::LEASE_NONE) {
        inode->names_complete = true;  // It is empty.
    }
    own_change(parent, name, inode->ino);
    co_return inode->attr;
}

Task<Result<pb::Attr>> FileClient::link(InodeId ino, InodeId parent, std::string name) {
    pb::MetaRequest request;
    pb::Link& op = *request.mutable_link();
    op.set_ino(ino.value);
    op.set_new_parent(parent.value);
    op.set_new_name(name);
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        InodeRef directory = cache_.find(parent);
        if (directory) {
            cache_.forget_name(*directory, name);
        }
        co_return std::move(reply).error();
    }
    InodeRef inode = adopt(reply->attr());
    inode->meta_synced = false;
    own_change(parent, name, ino);
    co_return inode->attr;
}

// The inode behind a name, if that is known for certain.
InodeRef FileClient::known_child(InodeId parent, const std::string& name) {
    InodeRef directory = cache_.find(parent);
    if (!directory || !usable(*directory, pb::LEASE_READ)) {
        return nullptr;
    }
    auto found = directory->names.find(name);
    if (found == directory->names.end() || !found->second) {
        return nullptr;
    }
    return cache_.find(found->second);
}

Task<Status> FileClient::unlink(InodeId parent, std::string name) {
    co_return co_await remove(parent, std::move(name), false);
}

Task<Status> FileClient::rmdir(InodeId parent, std::string name) {
    co_return co_await remove(parent, std::move(name), true);
}

Task<Status> FileClient::remove(InodeId parent, std::string name, bool directory) {
    InodeRef child = known_child(parent, name);
    InodeRef dying;
    if (child && !directory && child->attr.nlink() == 1 && child->closed()) {
        dying = child;
    }
    Hold hold(*this, dying, Hold::For::kRemoval);
    co_await hold.quiet();
    pb::MetaRequest request;
    pb::Remove& op = *request.mutable_remove();
    op.set_parent(parent.value);
    op.set_name(name);
    op.set_directory(directory);
    if (child && !child->closed()) {
        child.reset();
    }
    NotOpen not_open(child);
    op.set_not_open_ino(child ? child->ino.value : 0);
    if (child && child == dying && dying->unwritten) {
        op.set_unwritten_lease_seq(dying->lease_seq);
    }
    if (dying && usable(*dying, pb::LEASE_EXCLUSIVE)) {
        op.set_size(dying->attr.size());
    }
    auto reply = co_await call(std::move(request));
    not_open.end();
    if (!reply.ok()) {
        InodeRef changed = cache_.find(parent);
        if (changed) {
            cache_.forget_name(*changed, name);
        }
        hold.end();
        co_return std::move(reply).error();
    }
    own_change(parent, name, InodeId());
    forget_removed(reply->attr(), reply->orphaned());
    hold.end();
    co_return Status();
}

// An inode lost a name: `attr` is what it is now.
void FileClient::forget_removed(const pb::Attr& attr, bool orphaned) {
    InodeRef inode = cache_.find(InodeId(attr.ino()));
    if (!inode) {
        return;
    }
    bool gone = attr.nlink() == 0 && !orphaned && inode->opens == 0;
    if (!gone) {
        cache_.adopt_attr(*inode, attr);
        inode->meta_synced = false;
        inode->server_open = inode->server_open || orphaned;
        close_unused(*inode);
        return;
    }
    forget_dirty(*inode, 0);
    inode->write_errors_told = inode->write_errors;
    inode->unsynced.clear();
    inode->size_dirty = false;
    inode->times_dirty = false;
    meta_dirty_.erase(inode->ino);
    drop_fetched(*inode, 0, UINT64_MAX);
    inode->lease = pb::LEASE_NONE;
    inode->server_open = false;
    cache_.erase(inode->ino);
}

Task<Status> FileClient::rename(pb::Rename op) {
    InodeId parent(op.parent());
    InodeId new_parent(op.new_parent());
    std::string name = op.name();
    std::string new_name = op.new_name();
    constexpr uint32_t kExchange = 2;
    bool exchange = op.flags() == kExchange;
    InodeRef moved = known_child(parent, name);
    InodeRef replaced;
    if (!exchange) {
        replaced = known_child(new_parent, new_name);
    }
    InodeRef dying;
    InodeRef closed;
    if (replaced && replaced->closed() && replaced != moved) {
        closed = replaced;
        op.set_not_open_ino(replaced->ino.value);
        if (replaced->attr.nlink() == 1) {
            dying = replaced;
        }
    }
    NotOpen not_open(closed);
    Hold hold(*this, dying, Hold::For::kRemoval);
    co_await hold.quiet();
    if (dying && usable(*dying, pb::LEASE_EXCLUSIVE)) {
        op.set_size(dying->attr.size());
    }
    pb::MetaRequest request;
    *request.mutable_rename() = std::move(op);
    auto reply = co_await call(std::move(request));
    not_open.end();
    if (!reply.ok()) {
        hold.end();
        InodeRef from = cache_.find(parent);
        InodeRef to = cache_.find(new_parent);
        if (from) {
            cache_.forget_name(*from, name);
        }
        if (to) {
            cache_.forget_name(*to, new_name);
        }
        co_return std::move(reply).error();
    }
    InodeRef inode = adopt(reply->attr());
    inode->meta_synced = false;
    own_change(new_parent, new_name, inode->ino);
    InodeId old_name_ino;
    uint64_t replaced_ino = reply->has_replaced() ? reply->replaced().ino() : 0;
    if (replaced_ino == inode->ino.value) {
        old_name_ino = inode->ino;  // Two names of one file: nothing happened.
    } else if (replaced_ino != 0 && exchange) {
        old_name_ino = adopt(reply->replaced())->ino;
    } else if (replaced_ino != 0) {
        forget_removed(reply->replaced(), reply->orphaned());
    }
    own_change(parent, name, old_name_ino);
    hold.end();
    co_return Status();
}

Task<Result<pb::MetaReply>> FileClient::list(InodeId ino, std::string after) {
    InodeRef directory = cache_.get(ino);
    uint64_t epoch = directory->names_epoch;
    pb::MetaRequest request;
    pb::ReadDir& op = *request.mutable_readdir();
    op.set_ino(ino.value);
    op.set_after(std::move(after));
    op.set_attrs(true);
    op.set_want_parent(pb::LEASE_READ);
    auto reply = co_await call(std::move(request));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    for (const pb::DirEntry& entry : reply->entries()) {
        remember_name(*directory, epoch, entry.name(), InodeId(entry.ino()));
    }
    co_return reply;
}

void FileClient::listed_all(InodeId ino, uint64_t epoch) {
    InodeRef directory = cache_.find(ino);
    if (directory && directory->lease != pb::LEASE_NONE && directory->names_epoch == epoch) {
        directory->names_complete = true;
    }
}

}  // namespace kdfs::client
