// The operations of FuseBridge: from the cache at once, or by a coroutine.

#include "client/fuse_bridge.h"
#include "client/fuse_convert.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace kdfs::client {
namespace {

// Several writes to one O_DIRECT file at once: libfuse knows the flag from 3.15 on.
void allow_parallel_direct_writes(fuse_file_info& info) {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 15)
    info.parallel_direct_writes = 1;
#else
    (void)info;
#endif
}

// The kernel takes 1024 at most, with some for headers.
constexpr size_t kReplyBuffersMax = 1000;
// "." and "..".
constexpr uint64_t kDotEntries = 2;

}  // namespace

void FuseBridge::lookup(fuse_req_t req, InodeId parent, const char* name) {
    std::string key(name);
    const pb::Attr* attr = nullptr;
    if (!client_->cached_lookup(parent, key, attr)) {
        scope_->spawn_now(do_lookup(req, parent, std::move(key)));
    } else if (attr == nullptr) {
        answer_absent(req, parent, key);
    } else {
        answer_entry(req, parent, key, *attr);
    }
}

Task<void> FuseBridge::do_lookup(fuse_req_t req, InodeId parent, std::string name) {
    auto attr = co_await client_->lookup(parent, name);
    if (attr.ok()) {
        answer_entry(req, parent, name, *attr);
    } else if (attr.error().code == Errc::kNotFound) {
        answer_absent(req, parent, name);
    } else {
        fail(req, attr.error());
    }
}

void FuseBridge::getattr(fuse_req_t req, InodeId ino) {
    const pb::Attr* attr = client_->cached_attr(ino);
    if (attr != nullptr) {
        answer_attr(req, *attr);
    } else {
        scope_->spawn_now(do_getattr(req, ino));
    }
}

Task<void> FuseBridge::do_getattr(fuse_req_t req, InodeId ino) {
    auto attr = co_await client_->getattr(ino);
    if (attr.ok()) {
        answer_attr(req, *attr);
    } else {
        fail(req, attr.error());
    }
}

void FuseBridge::setattr(fuse_req_t req, pb::SetAttr op) {
    scope_->spawn_now(do_setattr(req, std::move(op)));
}

Task<void> FuseBridge::do_setattr(fuse_req_t req, pb::SetAttr op) {
    auto attr = co_await client_->setattr(std::move(op));
    if (attr.ok()) {
        answer_attr(req, *attr);
    } else {
        fail(req, attr.error());
    }
}

void FuseBridge::readlink(fuse_req_t req, InodeId ino) {
    const pb::Attr* attr = client_->cached_attr(ino);
    if (attr != nullptr) {
        fuse_reply_readlink(req, attr->symlink().c_str());
    } else {
        scope_->spawn_now(do_readlink(req, ino));
    }
}

Task<void> FuseBridge::do_readlink(fuse_req_t req, InodeId ino) {
    auto attr = co_await client_->getattr(ino);
    if (attr.ok()) {
        fuse_reply_readlink(req, attr->symlink().c_str());
    } else {
        fail(req, attr.error());
    }
}

void FuseBridge::make(fuse_req_t req, pb::Create op) {
    scope_->spawn_now(do_make(req, std::move(op)));
}

Task<void> FuseBridge::do_make(fuse_req_t req, pb::Create op) {
    InodeId parent(op.parent());
    std::string name = op.name();
    auto attr = co_await client_->make(std::move(op));
    if (attr.ok()) {
        answer_entry(req, parent, name, *attr);
    } else {
        fail(req, attr.error());
    }
}

void FuseBridge::create(fuse_req_t req, pb::Create op, fuse_file_info info) {
    scope_->spawn_now(do_create(req, std::move(op), info));
}

Task<void> FuseBridge::do_create(fuse_req_t req, pb::Create op, fuse_file_info info) {
    InodeId parent(op.parent());
    std::string name = op.name();
    auto opened = co_await client_->create(std::move(op));
    if (!opened.ok()) {
        fail(req, opened.error());
        co_return;
    }
    fuse_entry_param entry = entry_of(parent, name, opened->attr);
    info.fh = opened->id;
    info.keep_cache = 1;
    allow_parallel_direct_writes(info);
    if (fuse_reply_create(req, &entry, &info) == -ENOENT) {
        client_->release(opened->id);  // The caller is gone; nobody will close it.
    }
}

void FuseBridge::remove(fuse_req_t req, InodeId parent, const char* name, bool directory) {
    scope_->spawn_now(do_remove(req, parent, std::string(name), directory));
}

Task<void> FuseBridge::do_remove(fuse_req_t req, InodeId parent, std::string name, bool directory) {
    Status status;
    if (directory) {
        status = co_await client_->rmdir(parent, std::move(name));
    } else {
        status = co_await client_->unlink(parent, std::move(name));
    }
    answer(req, status);
}

void FuseBridge::rename(fuse_req_t req, pb::Rename op) {
    scope_->spawn_now(do_rename(req, std::move(op)));
}

Task<void> FuseBridge::do_rename(fuse_req_t req, pb::Rename op) {
    Status status = co_await client_->rename(std::move(op));
    answer(req, status);
}

void FuseBridge::link(fuse_req_t req, InodeId ino, InodeId parent, const char* name) {
    scope_->spawn_now(do_link(req, ino, parent, std::string(name)));
}

Task<void> FuseBridge::do_link(fuse_req_t req, InodeId ino, InodeId parent, std::string name) {
    auto attr = co_await client_->link(ino, parent, name);
    if (attr.ok()) {
        answer_entry(req, parent, name, *attr);
    } else {
        fail(req, attr.error());
    }
}

void FuseBridge::open(fuse_req_t req, InodeId ino, fuse_file_info info) {
    scope_->spawn_now(do_open(req, ino, info));
}

Task<void> FuseBridge::do_open(fuse_req_t req, InodeId ino, fuse_file_info info) {
    OpenOptions options;
    options.write = (info.flags & O_ACCMODE) != O_RDONLY;
    options.truncate = (info.flags & O_TRUNC) != 0;
    auto opened = co_await client_->open(ino, options);
    if (!opened.ok()) {
        fail(req, opened.error());
        co_return;
    }
    info.fh = opened->id;
    info.keep_cache = client_->attr_cacheable(ino) ? 1 : 0;
    allow_parallel_direct_writes(info);
    info.noflush = options.write ? 0 : 1;
    if (fuse_reply_open(req, &info) == -ENOENT) {
        client_->release(opened->id);
    }
}

void FuseBridge::read(fuse_req_t req, OpenId id, uint64_t offset, uint64_t length) {
    scope_->spawn_now(do_read(req, id, offset, length));
}

Task<void> FuseBridge::do_read(fuse_req_t req, OpenId id, uint64_t offset, uint64_t length) {
    auto data = co_await client_->read(id, offset, length);
    if (!data.ok()) {
        fail(req, data.error());
        co_return;
    }
    BufferChain bytes = std::move(*data);
    if (bytes.pieces().size() > kReplyBuffersMax) {
        bytes = BufferChain(bytes.flatten());
    }
    std::vector<iovec> parts;
    parts.reserve(bytes.pieces().size());
    for (const Buffer& piece : bytes.pieces()) {
        iovec part{};
        part.iov_base = const_cast<std::byte*>(piece.data());
        part.iov_len = piece.size();
        parts.push_back(part);
    }
    fuse_reply_iov(req, parts.data(), static_cast<int>(parts.size()));
}

void FuseBridge::write(fuse_req_t req,
                       const char* data,
                       size_t size,
                       uint64_t offset,
                       fuse_file_info* info) {
    WriteOp op(info->fh, offset, payload(data, size));
    op.append = (info->flags & O_APPEND) != 0;
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
    op.kill_suid = info->kill_suidgid != 0;
#endif
    scope_->spawn_now(do_write(req, std::move(op)));
}

Task<void> FuseBridge::do_write(fuse_req_t req, WriteOp op) {
    auto written = co_await client_->write(std::move(op));
    if (written.ok()) {
        fuse_reply_write(req, *written);
    } else {
        fail(req, written.error());
    }
}

void FuseBridge::flush(fuse_req_t req, OpenId id) { answer(req, client_->flush(id)); }

void FuseBridge::release(fuse_req_t req, OpenId id) {
    client_->release(id);
    fuse_reply_err(req, 0);
}

void FuseBridge::fsync(fuse_req_t req, OpenId id, bool data_only) {
    scope_->spawn_now(do_fsync(req, id, data_only));
}

Task<void> FuseBridge::do_fsync(fuse_req_t req, OpenId id, bool data_only) {
    Status status = co_await client_->fsync(id, data_only);
    answer(req, status);
}

void FuseBridge::opendir(fuse_req_t req, InodeId ino, fuse_file_info info) {
    uint64_t id = next_directory_++;
    directories_.emplace(id, std::make_shared<DirStream>(*client_, ino));
    info.fh = id;
    if (fuse_reply_open(req, &info) == -ENOENT) {
        directories_.erase(id);
    }
}

void FuseBridge::releasedir(fuse_req_t req, uint64_t id) {
    directories_.erase(id);
    fuse_reply_err(req, 0);
}

void FuseBridge::readdir(fuse_req_t req, uint64_t id, uint64_t offset, size_t size) {
    scope_->spawn_now(do_readdir(req, id, offset, size));
}

Task<void> FuseBridge::do_readdir(fuse_req_t req, uint64_t id, uint64_t offset, size_t size) {
    auto found = directories_.find(id);
    if (found == directories_.end()) {
        fuse_reply_err(req, EBADF);
        co_return;
    }
    std::shared_ptr<DirStream> stream = found->second;
    std::vector<char> out;
    out.reserve(size);
    // Offset n is behind entry number n; the first two are the dots.
    uint64_t number = offset;
    if (number < kDotEntries) {
        Status status = co_await stream->seek(0);
        if (!status.ok()) {
            fail(req, status.error());
            co_return;
        }
    }
    while (true) {
        bool dot = number < kDotEntries;
        if (!dot && stream->entry(number - kDotEntries) == nullptr) {
            if (stream->ended(number - kDotEntries) || !out.empty()) {
                break;
            }
            Status status = co_await stream->seek(number - kDotEntries);
            if (!status.ok()) {
                fail(req, status.error());
                co_return;
            }
            continue;
        }
        if (!add_entry(req, *stream, number, out)) {
            break;
        }
        ++number;
    }
    fuse_reply_buf(req, out.data(), out.size());
}

// False if it does not fit any more.
bool FuseBridge::add_entry(fuse_req_t req,
                           const DirStream& stream,
                           uint64_t number,
                           std::vector<char>& out) {
    struct stat st = {};
    std::string name;
    if (number < kDotEntries) {
        name = number == 0 ? "." : "..";
        st.st_ino = stream.ino().value;
        st.st_mode = S_IFDIR;
    } else {
        const pb::DirEntry& found = *stream.entry(number - kDotEntries);
        name = found.name();
        st.st_ino = found.ino();
        st.st_mode = found.mode();
    }
    size_t used = out.size();
    size_t room = out.capacity() - used;
    auto next = static_cast<off_t>(number + 1);
    size_t needed = fuse_add_direntry(req, nullptr, 0, name.c_str(), &st, next);
    if (needed > room) {
        return false;
    }
    out.resize(used + needed);
    fuse_add_direntry(req, out.data() + used, needed, name.c_str(), &st, next);
    return true;
}

void FuseBridge::fsyncdir(fuse_req_t req) { scope_->spawn_now(do_fsyncdir(req)); }

Task<void> FuseBridge::do_fsyncdir(fuse_req_t req) {
    Status status = co_await client_->fsync_directory();
    answer(req, status);
}

void FuseBridge::statfs(fuse_req_t req) { scope_->spawn_now(do_statfs(req)); }

Task<void> FuseBridge::do_statfs(fuse_req_t req) {
    auto stat = co_await client_->statfs();
    if (!stat.ok()) {
        fail(req, stat.error());
        co_return;
    }
    struct statvfs st = to_statvfs(*stat);
    fuse_reply_statfs(req, &st);
}

void FuseBridge::setxattr(fuse_req_t req, pb::SetXattr op) {
    scope_->spawn_now(do_setxattr(req, std::move(op)));
}

Task<void> FuseBridge::do_setxattr(fuse_req_t req, pb::SetXattr op) {
    Status status = co_await client_->setxattr(std::move(op));
    answer(req, status);
}

void FuseBridge::getxattr(fuse_req_t req, InodeId ino, const char* name, size_t size) {
    scope_->spawn_now(do_getxattr(req, ino, std::string(name), size));
}

Task<void> FuseBridge::do_getxattr(fuse_req_t req, InodeId ino, std::string name, size_t size) {
    auto value = co_await client_->getxattr(ino, std::move(name));
    if (value.ok()) {
        answer_value(req, *value, size);
    } else {
        fail(req, value.error());
    }
}

void FuseBridge::listxattr(fuse_req_t req, InodeId ino, size_t size) {
    scope_->spawn_now(do_listxattr(req, ino, size));
}

Task<void> FuseBridge::do_listxattr(fuse_req_t req, InodeId ino, size_t size) {
    auto names = co_await client_->listxattr(ino);
    if (!names.ok()) {
        fail(req, names.error());
        co_return;
    }
    std::string list;
    for (const std::string& name : *names) {
        list += name;
        list.push_back('\0');
    }
    answer_value(req, list, size);
}

void FuseBridge::removexattr(fuse_req_t req, InodeId ino, const char* name) {
    scope_->spawn_now(do_removexattr(req, ino, std::string(name)));
}

Task<void> FuseBridge::do_removexattr(fuse_req_t req, InodeId ino, std::string name) {
    Status status = co_await client_->removexattr(ino, std::move(name));
    answer(req, status);
}

}  // namespace kdfs::client
