#include "tests/sim/sim_disk.h"

#include "kdfs/base/check.h"
#include "kdfs/rt/sync.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kdfs::sim {
namespace {

// How long an operation takes: a little that varies, now and then much.
Duration operation_time(Env& env, DiskMedium& disk, uint64_t bytes) {
    uint64_t nanoseconds = env.random().range(20'000, 120'000) + bytes / 2;
    if (env.fault("disk.slow")) {
        nanoseconds += env.random().range(1'000'000, 500'000'000);
    }
    if (disk.trouble().slow_max.count() != 0) {
        nanoseconds += env.random().below(static_cast<uint64_t>(disk.trouble().slow_max.count()));
    }
    return Duration(static_cast<int64_t>(nanoseconds));
}

class SimFile final : public File {
public:
    SimFile(Env& env, DiskMedium& disk, std::string name, std::shared_ptr<FileMedium> medium)
        : env_(env), disk_(disk), name_(std::move(name)), medium_(std::move(medium)) {}

    Task<Result<Buffer>> read(uint64_t offset, uint64_t size) override {
        co_await sleep_for(env_.scheduler(), operation_time(env_, disk_, size));
        if (size != 0 && offset + size > medium_->size()) {
            co_return Error(Errc::kIo, name_ + ": read beyond the end of the file");
        }
        if (env_.fault("disk.read_error") || !medium_->readable(offset, size)) {
            co_return Error(Errc::kIo, name_ + ": the simulated disk cannot read this");
        }
        Buffer out = Buffer::allocate(size);
        medium_->read(offset, out.mutable_span());
        co_return out;
    }
    Task<Status> write(uint64_t offset, BufferChain data) override {
        uint64_t beyond = offset + data.size();
        if (beyond > medium_->size() && !has_room(beyond)) {
            co_return full();
        }
        uint64_t change = begin_write(offset, data);
        co_await sleep_for(env_.scheduler(), operation_time(env_, disk_, data.size()));
        medium_->end_change(change);
        co_return Status();
    }
    Task<void> start_writeback(uint64_t, uint64_t) override { co_return; }

    Task<Status> sync() override {
        uint64_t sync = medium_->begin_sync();
        co_await sleep_for(env_.scheduler(), operation_time(env_, disk_, 0) * 5);
        medium_->end_sync(sync);
        co_return Status();
    }
    Task<Status> allocate(uint64_t size) override {
        if (size > medium_->size()) {
            if (!has_room(size)) {
                co_return full();
            }
            uint64_t change = medium_->begin_resize(size);
            co_await sleep_for(env_.scheduler(), operation_time(env_, disk_, 0));
            medium_->end_change(change);
        }
        co_return Status();
    }
    Task<Status> punch(uint64_t offset, uint64_t size) override {
        uint64_t change = medium_->begin_punch(offset, size);
        co_await sleep_for(env_.scheduler(), operation_time(env_, disk_, 0));
        medium_->end_change(change);
        co_return Status();
    }
    uint64_t size() const override { return medium_->size(); }

private:
    bool has_room(uint64_t size) const {
        return disk_.used_bytes() + size - medium_->size() <= disk_.capacity_bytes();
    }
    Error full() const { return {Errc::kNoSpace, name_ + ": the simulated disk is full"}; }

    uint64_t begin_write(uint64_t offset, const BufferChain& data) {
        uint32_t ppm = disk_.trouble().misdirect_ppm;
        if (ppm != 0 && env_.random().chance(ppm)) {
            uint64_t blocks = medium_->size() / kBlockBytes;
            uint64_t elsewhere = env_.random().below(blocks + 1) * kBlockBytes;
            bool apart = elsewhere + data.size() <= offset || elsewhere >= offset + data.size();
            if (apart && std::max(elsewhere, offset) + data.size() <= medium_->size()) {
                return medium_->begin_misdirected(offset, elsewhere, data);
            }
        }
        return medium_->begin_write(offset, data);
    }

    Env& env_;
    DiskMedium& disk_;
    std::string name_;
    std::shared_ptr<FileMedium> medium_;
};

}  // namespace

void FileMedium::read(uint64_t offset, std::span<std::byte> into) const {
    for (uint64_t done = 0; done < into.size();) {
        uint64_t at = offset + done;
        uint64_t in_page = at % kPageBytes;
        uint64_t count = std::min(kPageBytes - in_page, into.size() - done);
        auto page = pages_.find(at / kPageBytes);
        if (page == pages_.end()) {
            std::memset(into.data() + done, 0, count);
        } else {
            std::memcpy(into.data() + done, page->second->data() + in_page, count);
        }
        done += count;
    }
}

void FileMedium::write(uint64_t offset, std::span<const std::byte> from) {
    for (uint64_t done = 0; done < from.size();) {
        uint64_t at = offset + done;
        uint64_t in_page = at % kPageBytes;
        uint64_t count = std::min(kPageBytes - in_page, from.size() - done);
        std::unique_ptr<Page>& page = pages_[at / kPageBytes];
        if (page == nullptr) {
            page = std::make_unique<Page>();  // zeros
        }
        std::memcpy(page->data() + in_page, from.data() + done, count);
        done += count;
    }
}

void FileMedium::zero(uint64_t offset, uint64_t size) {
    while (size != 0) {
        uint64_t in_page = offset % kPageBytes;
        uint64_t count = std::min(kPageBytes - in_page, size);
        auto page = pages_.find(offset / kPageBytes);
        if (page != pages_.end()) {
            if (count == kPageBytes) {
                pages_.erase(page);
            } else {
                std::memset(page->second->data() + in_page, 0, count);
            }
        }
        offset += count;
        size -= count;
    }
}

FileMedium::Change& FileMedium::add_change(uint64_t offset, uint64_t size, uint64_t new_size) {
    Change change;
    change.number = next_change_++;
    change.offset = offset;
    change.old_size = size_;
    change.resized = new_size != size_;
    // Whole sectors, so that a lost one comes back whole.
    uint64_t first = offset / kSectorBytes * kSectorBytes;
    uint64_t beyond = (offset + size + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
    change.offset = first;
    change.old_bytes.resize(size == 0 ? 0 : beyond - first);
    read(first, change.old_bytes);
    size_ = new_size;
    changes_.push_back(std::move(change));
    return changes_.back();
}

uint64_t FileMedium::begin_write(uint64_t offset, const BufferChain& data) {
    uint64_t beyond = offset + data.size();
    note_overwritten(offset, data.size());
    Change& change = add_change(offset, data.size(), std::max(size_, beyond));
    for (const Buffer& piece : data.pieces()) {
        write(offset, piece.span());
        offset += piece.size();
    }
    return change.number;
}

uint64_t FileMedium::begin_resize(uint64_t size) { return add_change(size_, 0, size).number; }

uint64_t FileMedium::begin_punch(uint64_t offset, uint64_t size) {
    offset = std::min(offset, size_);
    size = std::min(size, size_ - offset);
    note_overwritten(offset, size);
    Change& change = add_change(offset, size, size_);
    zero(offset, size);
    return change.number;
}

void FileMedium::end_change(uint64_t change) {
    for (auto at = changes_.rbegin(); at != changes_.rend(); ++at) {
        if (at->number == change) {
            at->after_sync = next_sync_ - 1;
            return;
        }
    }
}

uint64_t FileMedium::begin_sync() {
    sync_sizes_.emplace(next_sync_, size_);
    return next_sync_++;
}

void FileMedium::end_sync(uint64_t sync) {
    auto size = sync_sizes_.find(sync);
    durable_size_ = std::max(durable_size_, size->second);
    sync_sizes_.erase(size);
    std::erase_if(changes_, [sync](const Change& change) { return change.after_sync < sync; });
}

void FileMedium::crash(Random& random, bool only_in_flight) {
    // Newest first: each sector ends as it was before some change or after the last one.
    for (auto change = changes_.rbegin(); change != changes_.rend(); ++change) {
        if (!only_in_flight || change->after_sync == UINT64_MAX) {
            undo(*change, random);
        }
    }
    sync_sizes_.clear();
    if (!only_in_flight) {
        changes_.clear();
        durable_size_ = size_;
        return;
    }
    for (Change& change : changes_) {
        change.after_sync = std::min(change.after_sync, next_sync_ - 1);
    }
}

void FileMedium::undo(const Change& change, Random& random) {
    uint64_t fate = random.below(3);  // 0: kept, 1: lost, 2: torn
    if (fate == 0) {
        return;
    }
    for (uint64_t at = 0; at < change.old_bytes.size(); at += kSectorBytes) {
        if (fate == 1 || random.below(2) == 0) {
            write(change.offset + at, std::span(change.old_bytes).subspan(at, kSectorBytes));
        }
    }
    uint64_t size = std::max(change.old_size, durable_size_);
    if (fate == 1 && change.resized && size < size_) {
        zero(size, size_ - size);
        size_ = size;
    }
}

void FileMedium::note_damage(uint64_t offset) {
    uint64_t block = offset / kBlockBytes * kBlockBytes;
    auto [at, added] = damaged_.try_emplace(block);
    if (added) {
        at->second.resize(kBlockBytes);
        read(block, at->second);
    }
}

void FileMedium::note_overwritten(uint64_t offset, uint64_t size) {
    if (size == 0) {
        return;
    }
    uint64_t first = offset / kBlockBytes * kBlockBytes;
    damaged_.erase(damaged_.lower_bound(first), damaged_.lower_bound(offset + size));
    unreadable_.erase(unreadable_.lower_bound(first), unreadable_.lower_bound(offset + size));
}

uint64_t FileMedium::begin_misdirected(uint64_t offset,
                                       uint64_t elsewhere,
                                       const BufferChain& data) {
    // Where it should have gone, its bytes belong; where it went, what was there.
    note_overwritten(offset, data.size());
    Buffer flat = data.flatten();
    for (uint64_t done = 0; done < flat.size(); done += kBlockBytes) {
        note_damage(offset + done);
        std::vector<std::byte>& good = damaged_[offset + done];
        uint64_t count = std::min<uint64_t>(kBlockBytes, flat.size() - done);
        std::memcpy(good.data(), flat.data() + done, count);
        note_damage(elsewhere + done);
    }
    Change& change = add_change(elsewhere, data.size(), size_);
    write(elsewhere, flat.span());
    return change.number;
}

void FileMedium::make_unreadable(uint64_t offset, uint64_t size) {
    for (uint64_t at = offset / kBlockBytes * kBlockBytes; at < offset + size; at += kBlockBytes) {
        unreadable_.insert(at);
    }
}

bool FileMedium::readable(uint64_t offset, uint64_t size) const {
    auto at = unreadable_.lower_bound(offset / kBlockBytes * kBlockBytes);
    return at == unreadable_.end() || *at >= offset + size;
}

void FileMedium::mend() {
    for (const auto& [offset, good] : damaged_) {
        write(offset, good);
    }
    damaged_.clear();
    unreadable_.clear();
}

std::vector<uint64_t> FileMedium::pages() const {
    std::vector<uint64_t> out;
    out.reserve(pages_.size());
    for (const auto& [number, page] : pages_) {
        out.push_back(number * kPageBytes);
    }
    return out;
}

void FileMedium::flip_byte(uint64_t offset) {
    note_damage(offset);
    std::byte one{};
    read(offset, std::span(&one, 1));
    one ^= std::byte{0x40};
    write(offset, std::span(&one, 1));
}

uint64_t DiskMedium::used_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [name, file] : files_) {
        bytes += file->size();
    }
    return bytes;
}

void DiskMedium::kill_process(Random& random) {
    for (auto& [name, file] : files_) {
        file->kill_process(random);
    }
}

void DiskMedium::cut_power(Random& random) {
    for (auto& [name, file] : files_) {
        file->cut_power(random);
    }
}

Task<Result<std::unique_ptr<File>>> SimDisk::open(std::string name) {
    co_await sleep_for(env_.scheduler(), operation_time(env_, medium_, 0));
    auto found = medium_.files().find(name);
    if (found == medium_.files().end()) {
        co_return Error(Errc::kNotFound, name + ": no such file on the simulated disk");
    }
    std::unique_ptr<File> file =
        std::make_unique<SimFile>(env_, medium_, std::move(name), found->second);
    co_return file;
}

Task<Result<std::unique_ptr<File>>> SimDisk::create(std::string name) {
    co_await sleep_for(env_.scheduler(), operation_time(env_, medium_, 0));
    auto [at, added] = medium_.files().try_emplace(name);
    if (!added) {
        co_return Error(Errc::kExists, name + ": exists on the simulated disk");
    }
    at->second = std::make_shared<FileMedium>();
    std::unique_ptr<File> file =
        std::make_unique<SimFile>(env_, medium_, std::move(name), at->second);
    co_return file;
}

Task<Status> SimDisk::remove(std::string name) {
    co_await sleep_for(env_.scheduler(), operation_time(env_, medium_, 0));
    if (medium_.files().erase(name) == 0) {
        co_return Error(Errc::kNotFound, name + ": no such file on the simulated disk");
    }
    co_return Status();
}

Task<Result<std::vector<std::string>>> SimDisk::list() {
    co_await sleep_for(env_.scheduler(), operation_time(env_, medium_, 0));
    std::vector<std::string> names;
    names.reserve(medium_.files().size());
    for (const auto& [name, file] : medium_.files()) {
        names.push_back(name);
    }
    co_return names;
}

Task<Result<DiskSpace>> SimDisk::space() {
    co_await sleep_for(env_.scheduler(), operation_time(env_, medium_, 0));
    DiskSpace space;
    space.total_bytes = medium_.capacity_bytes();
    space.free_bytes =
        medium_.capacity_bytes() - std::min(medium_.used_bytes(), medium_.capacity_bytes());
    co_return space;
}

}  // namespace kdfs::sim
