#pragma once

#include "client/file_client.h"

#include <cstdint>
#include <string>
#include <vector>

namespace kdfs::client {

// One open directory: its entries by number, fetched page by page. Going back fetches a page again.
// Memory: one page, and one name per page passed.
class DirStream {
public:
    DirStream(FileClient& client, InodeId ino) : client_(client), ino_(ino) {}

    InodeId ino() const { return ino_; }
    // Makes the page that holds entry number `index` current. Starting at 0 lists anew.
    Task<Status> seek(uint64_t index);
    // The entry, if it is on the current page; else null.
    const pb::DirEntry* entry(uint64_t index) const;
    bool ended(uint64_t index) const {
        return loaded_ && eof_ && index >= first_ + static_cast<uint64_t>(page_.entries_size());
    }

private:
    struct Page {
        uint64_t first = 0;
        std::string after;
    };
    Task<Status> load(size_t page);

    FileClient& client_;
    InodeId ino_;
    std::vector<Page> pages_;
    pb::MetaReply page_;
    uint64_t first_ = 0;
    bool loaded_ = false;
    bool eof_ = false;
    uint64_t epoch_ = 0;
    bool in_order_ = true;
};

}  // namespace kdfs::client
