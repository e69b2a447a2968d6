#include "client/dir_stream.h"

#include <utility>

namespace kdfs::client {

const pb::DirEntry* DirStream::entry(uint64_t index) const {
    if (!loaded_ || index < first_ ||
        index >= first_ + static_cast<uint64_t>(page_.entries_size())) {
        return nullptr;
    }
    return &page_.entries(static_cast<int>(index - first_));
}

Task<Status> DirStream::seek(uint64_t index) {
    if (index == 0) {
        pages_.clear();
        pages_.emplace_back();
        loaded_ = false;
        in_order_ = true;
    }
    while (entry(index) == nullptr && !ended(index)) {
        size_t page = 0;
        while (page + 1 < pages_.size() && pages_[page + 1].first <= index) {
            ++page;
        }
        if (pages_.empty()) {
            pages_.emplace_back();
        }
        in_order_ = in_order_ && page + 1 == pages_.size();
        KDFS_CO_TRY(co_await load(page));
    }
    co_return Status();
}

Task<Status> DirStream::load(size_t page) {
    std::string after = pages_[page].after;
    if (page == 0) {
        epoch_ = client_.names_epoch(ino_);
    }
    auto reply = co_await client_.list(ino_, std::move(after));
    if (!reply.ok()) {
        co_return std::move(reply).error();
    }
    page_ = std::move(*reply);
    first_ = pages_[page].first;
    loaded_ = true;
    eof_ = page_.eof() || page_.entries_size() == 0;
    if (eof_) {
        if (in_order_) {
            client_.listed_all(ino_, epoch_);
        }
    } else if (page + 1 == pages_.size()) {
        Page next;
        next.first = first_ + static_cast<uint64_t>(page_.entries_size());
        next.after = page_.entries(page_.entries_size() - 1).name();
        pages_.push_back(std::move(next));
    }
    co_return Status();
}

}  // namespace kdfs::client
