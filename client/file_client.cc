#include "client/file_client.h"

#include "client/hold.h"
#include "kdfs/proto/layout.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace kdfs::client {
namespace {

constexpr size_t kEvictAtOnce = 256;

bool layout_fits(const pb::Attr& attr) {
    return !S_ISREG(attr.mode()) || check_layout(attr.layout()).ok();
}

// Layouts are divided by from here on.
Status check_layouts(const pb::MetaReply& reply) {
    bool fit = layout_fits(reply.attr()) && layout_fits(reply.replaced());
    for (const pb::DirEntry& entry : reply.entries()) {
        fit = fit && layout_fits(entry.attr());
    }
    if (!fit) {
        return Error(Errc::kMalformed,
                     "the metadata server names a file layout that cannot be; run `kdfs fsck`");
    }
    return {};
}

}  // namespace

FileClient::FileClient(Env& env, ClientOptions options, Invalidator* invalidator)
    : env_(env),
      options_(std::move(options)),
      invalidator_(invalidator),
      zeros_(Buffer::zeros(kPieceBytesMax)),
      session_(env, options_, *this),
      chunks_(env, options_, session_),
      scope_(env.scheduler()) {}

FileClient::~FileClient() = default;

Task<Status> FileClient::start(TimePoint deadline) {
    KDFS_CO_TRY(co_await session_.start(deadline));
    scope_.spawn(background());
    co_return Status();
}

Task<Status> FileClient::stop() {
    Status first;
    std::vector<InodeRef> dirty;
    for (auto& [ino, inode] : dirty_) {
        dirty.push_back(inode);
    }
    for (InodeRef& inode : dirty) {
        co_await drain(inode);
        if (inode->untold_error() && first.ok()) {
            first = *inode->write_error;
        }
    }
    dirty.clear();
    for (auto& [ino, inode] : meta_dirty_) {
        dirty.push_back(inode);
    }
    std::vector<Task<Status>> flushes;
    flushes.reserve(dirty.size());
    for (InodeRef& inode : dirty) {
        flushes.push_back(flush_meta(inode, false));
    }
    std::vector<Status> results = co_await when_all(scope_, std::move(flushes));
    for (Status& result : results) {
        if (!result.ok() && first.ok()) {
            first = std::move(result);
        }
    }
    while (sending_releases_) {
        co_await releases_sent_.wait();
    }
    stopping_ = true;
    wake_background_.set();
    room_.pulse();
    co_await session_.stop();
    co_await chunks_.stop();
    co_await scope_.close();
    co_return first;
}

Task<Result<pb::MetaReply>> FileClient::call(pb::MetaRequest request, OpenAsk* ask) {
    struct Count {
        explicit Count(size_t& c) : counter(c) { ++counter; }
        ~Count() { --counter; }
        size_t& counter;
    };
    Count asking(asking_);
    bool write = request.has_create() || request.open().write();
    auto reply = co_await session_.call(std::move(request));
    if (reply.ok()) {
        Status sound = check_layouts(*reply);
        if (sound.ok()) {
            sound = check_kinds(*reply);
        }
        if (!sound.ok()) {
            reply = std::move(sound).error();
        }
    }
    // In the same turn in which the call stops counting: a recall that overtook the answer either
    // finds the lease here or leaves word because a call is under way.
    if (reply.ok()) {
        take_answer(*reply);
    }
    // Whoever waits for this runs in a later turn; until then the file does not count as open.
    if (reply.ok() && ask != nullptr) {
        ask->answered(cache_.get(InodeId(reply->attr().ino())), write);
    }
    if (asking_ == 1) {
        cache_.forget_caps();
    }
    co_return reply;
}

// What kind of file an inode is never changes.
Status FileClient::check_kinds(const pb::MetaReply& reply) const {
    auto differs = [this](const pb::Attr& attr) {
        InodeRef known = cache_.find(InodeId(attr.ino()));
        return known && known->attr.ino() != 0 &&
               ((known->attr.mode() ^ attr.mode()) & S_IFMT) != 0;
    };
    bool any = differs(reply.attr()) || differs(reply.parent()) || differs(reply.parent2());
    for (const pb::DirEntry& entry : reply.entries()) {
        any = any || differs(entry.attr());
    }
    if (any) {
        return Error(Errc::kMalformed,
                     "the metadata server says that an inode is another kind of file than before; "
                     "run `kdfs fsck`");
    }
    return {};
}

bool FileClient::usable(const Inode& inode, pb::LeaseMode mode) const {
    return inode.lease >= mode && session_.usable();
}

pb::LeaseMode FileClient::lease(InodeId ino) const {
    InodeRef inode = cache_.find(ino);
    return inode && session_.usable() ? inode->lease : pb::LEASE_NONE;
}

std::vector<std::pair<InodeId, pb::LeaseMode>> FileClient::leases() const {
    std::vector<std::pair<InodeId, pb::LeaseMode>> out;
    if (session_.usable()) {
        for (const InodeRef& inode : cache_.oldest_first()) {
            if (inode->lease != pb::LEASE_NONE) {
                out.emplace_back(inode->ino, inode->lease);
            }
        }
    }
    return out;
}

const pb::Attr* FileClient::cached_attr(InodeId ino) {
    InodeRef inode = cache_.find(ino);
    if (!inode || !usable(*inode, pb::LEASE_READ)) {
        return nullptr;
    }
    cache_.touch(*inode);
    return &inode->attr;
}

void FileClient::take_answer(const pb::MetaReply& reply) {
    if (reply.attr().ino() != 0) {
        take_attr(reply.attr(), reply.grant());
    }
    if (reply.parent().ino() != 0) {
        take_attr(reply.parent(), reply.parent_grant());
    }
    if (reply.parent2().ino() != 0) {
        take_attr(reply.parent2(), pb::Grant());
    }
    for (const pb::DirEntry& entry : reply.entries()) {
        if (entry.attr().ino() != 0) {
            take_attr(entry.attr(), entry.grant());
        }
    }
}

void FileClient::take_attr(const pb::Attr& attr, const pb::Grant& grant) {
    InodeRef inode = cache_.get(InodeId(attr.ino()));
    if (inode->attr.data() != attr.data() && inode->attr.change() < attr.change()) {
        // The file was emptied: what was written or read before belongs to the old data.
        forget_dirty(*inode, 0);
        drop_fetched(*inode, 0, UINT64_MAX);
        inode->size_dirty = false;
        inode->times_dirty = false;
    }
    if (inode->attr.cut() < attr.cut()) {
        // What is dirty beyond was written before the size was set, or beside it.
        forget_dirty(*inode, attr.size());
    }
    pb::LeaseMode had = inode->lease;
    cache_.adopt_grant(*inode, grant);
    if (had != pb::LEASE_NONE && inode->lease == pb::LEASE_NONE) {
        drop_inode_cache(*inode);
    }
    cache_.adopt_attr(*inode, attr);
    if (inode->lease > had && lease_watch_) {
        lease_watch_(inode->ino);
    }
}

// The inode of an answer that was taken; it may have gone from the cache since.
InodeRef FileClient::adopt(const pb::Attr& attr) {
    InodeRef inode = cache_.get(InodeId(attr.ino()));
    cache_.adopt_attr(*inode, attr);
    cache_.touch(*inode);
    if (cache_.size() > options_.inodes_max || cache_.names() > options_.names_max) {
        trim_cache();
    }
    return inode;
}

Status FileClient::regular_file(const Inode& inode) {
    if (!S_ISREG(inode.attr.mode())) {
        return Error(Errc::kIsDirectory,
                     "inode " + std::to_string(inode.ino.value) + " is no regular file");
    }
    return {};
}

Result<FileClient::OpenFile*> FileClient::open_file(OpenId id) {
    auto found = opens_.find(id);
    if (found == opens_.end()) {
        return Error(Errc::kBadHandle, "no open file has the number " + std::to_string(id));
    }
    return &found->second;
}

Opened FileClient::add_open(InodeRef inode, bool write) {
    Opened out;
    out.id = next_open_++;
    out.attr = inode->attr;
    ++inode->opens;
    ReadAhead ahead(piece_bytes(inode->attr.layout()), options_.read_ahead_bytes);
    // What nobody was told of yet is for whoever opens the file next.
    uint64_t seen = inode->write_errors_told;
    opens_.emplace(out.id, OpenFile{std::move(inode), write, ahead, seen, seen});
    return out;
}

// Forgets what may be used under the lease only.
void FileClient::drop_inode_cache(Inode& inode) {
    drop_fetched(inode, 0, UINT64_MAX);
    if (inode.lease == pb::LEASE_NONE) {
        cache_.drop_names(inode);
        inode.meta_synced = false;
    }
}

void FileClient::trim_cache() {
    cache_.shrink_names(options_.names_max);
    if (cache_.size() <= options_.inodes_max) {
        return;
    }
    for (const InodeRef& inode : cache_.idle(kEvictAtOnce, kEvictAtOnce * 4)) {
        if (inode->meta_dirty() && inode->lease == pb::LEASE_NONE) {
            continue;  // Until the server has heard of it.
        }
        if (inode->lease != pb::LEASE_NONE || inode->server_open) {
            if (invalidator_ != nullptr) {
                invalidator_->attributes(inode->ino);
                if (!inode->names.empty()) {
                    invalidator_->names();
                }
            }
            queue_release(*inode, pb::LEASE_NONE, false);
        }
        drop_inode_cache(*inode);
        if (inode->meta_dirty()) {
            continue;
        }
        meta_dirty_.erase(inode->ino);
        cache_.erase(inode->ino);
    }
}

pb::ReleaseOne FileClient::release_item(const Inode& inode,
                                        pb::LeaseMode keep,
                                        bool still_open) const {
    pb::ReleaseOne item;
    item.set_ino(inode.ino.value);
    item.set_keep(keep);
    item.set_still_open(still_open);
    item.set_lease_seq(inode.lease_seq);
    item.set_cut(inode.attr.cut());
    if (inode.meta_dirty()) {
        item.set_size(inode.attr.size());
        item.set_mtime(inode.attr.mtime());
    }
    return item;
}

void FileClient::queue_release(Inode& inode, pb::LeaseMode keep, bool still_open) {
    InodeRef known = cache_.find(inode.ino);
    if (known.get() != &inode) {
        known.reset();  // Forgotten: whoever opens it asks.
    }
    if (known && !still_open) {
        ++inode.told_closed;
    }
    releases_.push_back({std::move(known), release_item(inode, keep, still_open)});
    inode.server_open = still_open;
    inode.server_writes = inode.server_writes && still_open;
    cache_.cap(inode, inode.lease_seq, keep);
    if (keep == pb::LEASE_NONE) {
        drop_inode_cache(inode);  // It must not be found under the next lease.
    }
    if (!sending_releases_) {
        sending_releases_ = true;
        scope_.spawn(send_releases());
    }
}

Task<void> FileClient::send_releases() {
    while (!releases_.empty() && !stopping_) {
        pb::MetaRequest request;
        size_t count = std::min(releases_.size(), kReleaseBatch);
        std::vector<Release> sent;
        for (size_t i = 0; i < count; ++i) {
            *request.mutable_release()->add_items() = releases_[i].item;
            sent.push_back(std::move(releases_[i]));
        }
        releases_.erase(releases_.begin(), releases_.begin() + static_cast<std::ptrdiff_t>(count));
        auto reply = co_await call(std::move(request));
        if (!reply.ok()) {
            LogEvent(env_.log(), LogLevel::kWarn, "leases not given back")
                .with("count", count)
                .with("cause", reply.error().to_string());
        }
        for (const Release& release : sent) {
            released(release, reply.ok());
        }
    }
    sending_releases_ = false;
    releases_sent_.pulse();
}

void FileClient::told(const Release& release) {
    if (release.inode && !release.item.still_open()) {
        --release.inode->told_closed;
    }
}

// The server has it, or, not `taken`, it may not have it.
void FileClient::released(const Release& release, bool taken) {
    told(release);
    const pb::ReleaseOne& item = release.item;
    InodeId ino(item.ino());
    InodeRef inode = cache_.find(ino);
    if (!inode || !item.has_size() || !inode->meta_dirty()) {
        return;
    }
    // Unless it was written again meanwhile.
    if (taken && inode->attr.cut() == item.cut() && inode->attr.size() == item.size()) {
        inode->size_dirty = false;
    }
    bool same_times = inode->lease_seq == item.lease_seq() && inode->attr.mtime() == item.mtime();
    if (taken && same_times) {
        inode->times_dirty = false;
    }
    if (inode->meta_dirty()) {
        meta_dirty_.emplace(ino, inode);
        wake_background_.set();
    }
}

// The map, with the chain table of `layout` in it.
Task<Result<std::shared_ptr<const ClusterMap>>> FileClient::map_with(pb::Layout layout) {
    KDFS_CO_TRY(check_layout(layout));
    TimePoint deadline = env_.now() + options_.patience;
    while (true) {
        std::shared_ptr<const ClusterMap> map = session_.map();
        if (map->table(layout.table()) != nullptr) {
            co_return map;
        }
        bool newer = co_await session_.wait_newer(map->epoch(), deadline);
        if (!newer) {
            co_return Error(Errc::kNotServing,
                            "the cluster map has no chain table " + std::to_string(layout.table()) +
                                ", which a file refers to");
        }
    }
}

// Now, but after `earlier` in any case: who caches data compares times to see that it changed.
WallTime FileClient::time_after(WallTime earlier) {
    return std::max(env_.wall_clock().now(), earlier + 1);
}

}  // namespace kdfs::client
