// What a worker does with regular files.

#include "tests/sim/worker.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace kdfs::sim {
namespace {

// Counts a user of a file while it lives, also when its coroutine is destroyed.
class FileUse {
public:
    explicit FileUse(ModelInode& file) : file_(file) { ++file_.users; }
    FileUse(const FileUse&) = delete;
    FileUse& operator=(const FileUse&) = delete;
    ~FileUse() { --file_.users; }

private:
    ModelInode& file_;
};

// Has a file for a truncation. If the outcome stays unknown, the file is left alone for long
// enough.
class FileAlone {
public:
    FileAlone(ModelInode& file, const Workload& load) : file_(file), load_(load) {
        file_.exclusive = true;
        file_.exclusive_until = TimePoint::max();
    }
    FileAlone(const FileAlone&) = delete;
    FileAlone& operator=(const FileAlone&) = delete;
    ~FileAlone() {
        if (known_) {
            file_.exclusive = false;
        } else {
            file_.exclusive_until = load_.now() + Workload::kSettleTime;
        }
    }
    void known() { known_ = true; }

private:
    ModelInode& file_;
    const Workload& load_;
    bool known_ = false;
};

std::string name_of(const ModelInode& file) { return "inode " + std::to_string(file.ino); }

}  // namespace

Task<void> Worker::use_file(ModelRef file) {
    uint64_t saves = load_.options().checkpoint_percent;
    bool save = saves != 0 && random_.below(100) < saves;
    if (save) {
        file = shared_file();
    }
    if (!file || file->exclusive) {
        co_return;
    }
    FileUse use(*file);
    begin("open " + name_of(*file));
    client::OpenOptions options;
    options.write = save || random_.below(100) < 60;
    bool write_it = options.write;
    uint64_t links = file->links;
    bool unsure = file->links_unsure != 0;
    auto opened = co_await files_.open(InodeId(file->ino), options);
    if (!opened.ok()) {
        // Its last name may have gone meanwhile.
        bool gone = links == 0 || unsure || file->links_unsure != 0 || file->links == 0;
        bool stale =
            opened.error().code == Errc::kStaleHandle || opened.error().code == Errc::kNotFound;
        if (!(gone && stale) && !explained(opened.error())) {
            unexpected("open of " + name_of(*file), opened.error());
        }
        co_return;
    }
    client::OpenId id = opened->id;
    handle_session_ = session_;
    if (save) {
        co_await checkpoint(file, id);
    } else {
        co_await some_io(file, id, write_it);
    }
    begin("close " + name_of(*file));
    Status closed = files_.flush(id);
    if (!closed.ok() && !refused(*file, closed.error()) && !explained(closed.error())) {
        unexpected("close of " + name_of(*file), closed.error());
    }
    files_.release(id);
}

Task<void> Worker::some_io(ModelRef file, client::OpenId id, bool write_it) {
    uint64_t count = random_.range(1, 6);
    for (uint64_t i = 0; i < count && !load_.verdict().failed(); ++i) {
        if (write_it && random_.below(100) < load_.options().fsync_percent) {
            co_await fsync(file, id);
        } else if (write_it && random_.below(100) < 60) {
            co_await write(file, id);
        } else {
            uint64_t size = file->history.size_max(load_.now(), load_.now());
            uint64_t offset = random_.below(size + 1);
            uint64_t length = random_.range(1, load_.options().write_bytes_max);
            if (random_.below(4) == 0) {
                offset = 0;
                length = load_.options().file_bytes_max;
            }
            co_await read(file, id, offset, length);
        }
        if (random_.below(3) == 0) {
            Duration pause = std::chrono::milliseconds(random_.range(0, 1500));
            co_await sleep_for(env_.scheduler(), pause);
        }
    }
}

Task<void> Worker::write(ModelRef file, client::OpenId id) {
    uint64_t length = random_.range(1, load_.options().write_bytes_max);
    uint64_t offset = random_.below(load_.options().file_bytes_max);
    if (random_.below(3) == 0) {
        length = random_.range(1, 5000);
    }
    if (random_.below(4) == 0) {
        offset = file->history.size_max(load_.now(), load_.now());  // as a stream does
        offset = std::min(offset, load_.options().file_bytes_max);
    }
    if (random_.below(100) >= load_.options().unaligned_percent) {
        offset = offset / kBlockBytes * kBlockBytes;
        length = (length + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    }
    co_await write_at(std::move(file), id, offset, length);
}

// Writes every so manieth stride, as a parallel program saves its state, and syncs.
Task<void> Worker::checkpoint(ModelRef file, client::OpenId id) {
    constexpr uint64_t kRanks = 10;
    constexpr uint64_t kStrides[] = {4096, 8192, 10'000};
    uint64_t stride = kStrides[file->ino % std::size(kStrides)];
    uint64_t rank = client_ * 2 % kRanks + random_.below(2);
    for (uint64_t at = rank; at < 3 * kRanks && !load_.verdict().failed(); at += kRanks) {
        co_await write_at(file, id, at * stride, stride);
    }
    co_await fsync(file, id);
    co_await read(std::move(file), id, 0, load_.options().file_bytes_max);
}

// The one that all take for checkpoints.
ModelRef Worker::shared_file() {
    for (const auto& [name, entry] : load_.model().root()->names) {
        if (entry.inode && entry.inode->kind == ModelKind::kFile) {
            return entry.inode;
        }
    }
    return choose_file();
}

Task<void> Worker::write_at(ModelRef file, client::OpenId id, uint64_t offset, uint64_t length) {
    begin("write " + name_of(*file) + " " + std::to_string(offset) + "+" + std::to_string(length));
    uint64_t change = file->history.begin_write(client_, offset, length, load_.now());
    Buffer data = Buffer::allocate(length);
    FileHistory::fill(change, offset, data.mutable_span());
    client::WriteOp op(id, offset, std::move(data));
    auto written = co_await files_.write(std::move(op));
    if (!written.ok()) {
        if (!refused(*file, written.error()) && !explained(written.error())) {
            unexpected("write to " + name_of(*file), written.error());
        }
        co_return;
    }
    if (*written != length) {
        load_.verdict().wrong("write to " + name_of(*file) + " wrote " + std::to_string(*written) +
                              " of " + std::to_string(length) + " bytes");
    }
    if (!lost() && load_.tight_space()) {
        file->history.acknowledge(change, load_.now());
    } else if (!lost()) {
        file->history.end(change, load_.now());
    }
    trace("wrote " + name_of(*file) + " by change " + std::to_string(change));
}

bool Worker::refused(ModelInode& file, const Error& error) {
    if (!load_.tight_space() || error.code != Errc::kNoSpace) {
        return false;
    }
    file.history.client_lost(client_);
    load_.settle_later(client_);
    return true;
}

Task<void> Worker::read(ModelRef file, client::OpenId id, uint64_t offset, uint64_t length) {
    begin("read " + name_of(*file) + " " + std::to_string(offset) + "+" + std::to_string(length));
    TimePoint began = load_.now();
    auto data = co_await files_.read(id, offset, length);
    if (!data.ok()) {
        if (!explained(data.error())) {
            unexpected("read of " + name_of(*file), data.error());
        }
        co_return;
    }
    if (lost()) {
        co_return;
    }
    Buffer flat = data->flatten();
    auto wrong = file->history.check_read(offset, length, flat.span(), began, load_.now());
    bool news = wrong && load_.notice_lost_sessions();
    news = (wrong && load_.notice_losses()) || news;
    if (news) {
        wrong = file->history.check_read(offset, length, flat.span(), began, load_.now());
    }
    load_.check(wrong, "client " + std::to_string(client_) + ", " + name_of(*file), file.get());
}

Task<bool> Worker::fsync(ModelRef file, client::OpenId id) {
    begin("fsync " + name_of(*file));
    TimePoint began = load_.now();
    Status status = co_await files_.fsync(id, random_.below(2) == 0);
    if (!status.ok()) {
        trace("fsync of " + name_of(*file) + " failed: " + status.error().to_string());
        // The last replica's machine lost power since the write: the client cannot know more.
        bool power = status.error().code == Errc::kLostData && load_.storage_lost_power();
        if (power) {
            load_.notice_losses();
            file->history.told_lost(client_);
        }
        if (!power && !refused(*file, status.error()) && !explained(status.error())) {
            unexpected("fsync of " + name_of(*file), status.error());
        }
        co_return false;
    }
    if (lost()) {
        co_return false;
    }
    file->history.synced(client_, began, load_.now());
    file->history.prune(began - std::chrono::seconds(300));
    co_return true;
}

Task<void> Worker::truncate(ModelRef file) {
    if (file->users != 0 || file->exclusive) {
        co_return;
    }
    FileAlone alone(*file, load_);
    uint64_t size = random_.below(load_.options().file_bytes_max);
    if (random_.below(3) == 0) {
        size = 0;
    }
    begin("truncate " + name_of(*file) + " to " + std::to_string(size));
    uint64_t change = file->history.begin_truncate(client_, size, load_.now());
    pb::SetAttr request;
    request.set_ino(file->ino);
    request.set_size(size);
    uint64_t links = file->links;
    auto done = co_await files_.setattr(std::move(request));
    if (done.ok()) {
        if (!lost()) {
            file->history.end(change, load_.now());
            alone.known();
        }
        co_return;
    }
    bool gone = links == 0 || file->links_unsure != 0 || file->links == 0;
    bool stale = done.error().code == Errc::kStaleHandle || done.error().code == Errc::kNotFound;
    if (!(gone && stale) && !refused(*file, done.error()) && !explained(done.error())) {
        unexpected("truncation of " + name_of(*file), done.error());
    }
}

Task<void> Worker::get_attributes(ModelRef inode) {
    begin("getattr " + name_of(*inode));
    TimePoint began = load_.now();
    uint64_t links = inode->links;
    uint64_t version = inode->links_version;
    bool unsure = inode->links_unsure != 0;
    auto attr = co_await files_.getattr(InodeId(inode->ino));
    unsure |= inode->links_version != version || inode->closing;
    if (!attr.ok()) {
        bool gone = unsure || inode->links == 0 || inode->removed;
        bool stale =
            attr.error().code == Errc::kStaleHandle || attr.error().code == Errc::kNotFound;
        if (!(gone && stale) && !explained(attr.error())) {
            unexpected("getattr of " + name_of(*inode), attr.error());
        }
        co_return;
    }
    if (lost()) {
        co_return;
    }
    std::string who = "client " + std::to_string(client_) + ", getattr of " + name_of(*inode);
    if (inode->kind != ModelKind::kDirectory && !unsure && attr->nlink() != links) {
        load_.verdict().wrong(who + ": " + std::to_string(attr->nlink()) + " links, expected " +
                              std::to_string(links));
    }
    if (inode->kind == ModelKind::kFile) {
        auto wrong = inode->history.check_size(attr->size(), began, load_.now());
        if (wrong && load_.notice_lost_sessions()) {
            wrong = inode->history.check_size(attr->size(), began, load_.now());
        }
        load_.check(wrong, who, inode.get());
    }
}

Task<void> Worker::verify_file(ModelRef file) {
    co_await get_attributes(file);
    begin("open");
    client::OpenOptions options;
    auto opened = co_await files_.open(InodeId(file->ino), options);
    if (!opened.ok()) {
        if (!explained(opened.error())) {
            unexpected("open of " + name_of(*file) + " at the end", opened.error());
        }
        co_return;
    }
    client::OpenId id = opened->id;
    co_await read(file, id, 0, load_.options().file_bytes_max * 2);
    files_.release(id);
}

}  // namespace kdfs::sim
