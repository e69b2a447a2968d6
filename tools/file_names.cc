#include "tools/file_names.h"

#include "mds/schema.h"

#include <chrono>
#include <utility>

namespace kdfs::tools {

namespace {

constexpr uint32_t kRecordsPerPage = 4096;
constexpr auto kPagePatience = std::chrono::seconds(30);
// A directory deeper than this is shown from there on only.
constexpr int kDepthMax = 1000;

// Shows `see` every record of a table.
template <class See>
Status scan_table(ClusterLink& link, const std::string& mds, mds::Table table, See see) {
    pb::ScanMetaRequest request;
    request.set_entries_max(kRecordsPerPage);
    request.set_after(mds::table_begin(table));
    for (;;) {
        KDFS_TRY_ASSIGN(
            pb::ScanMetaReply page,
            link.ask<pb::ScanMetaReply>(mds, MessageType::kScanMeta, request, kPagePatience));
        for (const pb::MetaRecord& record : page.records()) {
            if (record.key().empty() || record.key()[0] != static_cast<char>(table)) {
                return {};
            }
            KDFS_TRY(see(record.key(), record.value()));
        }
        if (!page.more() || page.records().empty()) {
            return {};
        }
        request.set_after(page.records(page.records_size() - 1).key());
    }
}

struct Name {
    uint64_t parent = 0;
    std::string text;
};

class Finder {
public:
    Finder(ClusterLink& link, const std::string& mds) : link_(link), mds_(mds) {}

    Status find_inodes(const std::set<uint64_t>& data) {
        auto see = [&](const std::string& key, const std::string& value) -> Status {
            KDFS_TRY_ASSIGN(mds::Inode inode, mds::decode_inode(key, value));
            if (inode.is_directory()) {
                parents_[inode.ino.value] = inode.parent.value;
            } else if (data.contains(inode.data.value)) {
                FileName& file = files_[inode.data.value];
                file.ino = inode.ino.value;
                file.layout = inode.layout;
                wanted_.insert(inode.ino.value);
            }
            return {};
        };
        return scan_table(link_, mds_, mds::Table::kInode, see);
    }
    // Names of what is wanted; then their directories are.
    Status find_names() {
        auto see = [&](const std::string& key, const std::string& value) -> Status {
            KDFS_TRY_ASSIGN(mds::NamedKey named, mds::parse_named_key(key));
            KDFS_TRY_ASSIGN(mds::Dentry dentry, mds::decode_dentry(key, value));
            if (wanted_.contains(dentry.ino.value)) {
                names_.try_emplace(dentry.ino.value, Name{named.number, std::string(named.name)});
            }
            return {};
        };
        KDFS_TRY(scan_table(link_, mds_, mds::Table::kDentry, see));
        for (const auto& [data, file] : files_) {
            auto name = names_.find(file.ino);
            uint64_t directory = name == names_.end() ? 0 : name->second.parent;
            for (int i = 0; i < kDepthMax && parents_.contains(directory); ++i) {
                wanted_.insert(directory);
                directory = parents_[directory] == directory ? 0 : parents_[directory];
            }
        }
        return {};
    }
    std::map<uint64_t, FileName> take() {
        for (auto& [data, file] : files_) {
            uint64_t at = file.ino;
            for (int i = 0; i < kDepthMax; ++i) {
                auto name = names_.find(at);
                if (name == names_.end()) {
                    break;
                }
                file.path = "/" + name->second.text + file.path;
                at = name->second.parent;
            }
        }
        return std::move(files_);
    }

private:
    ClusterLink& link_;
    const std::string& mds_;
    std::map<uint64_t, FileName> files_;
    std::map<uint64_t, uint64_t> parents_;  // of directories
    std::set<uint64_t> wanted_;
    std::map<uint64_t, Name> names_;
};

}  // namespace

Result<std::map<uint64_t, FileName>> find_file_names(ClusterLink& link,
                                                     const std::string& mds,
                                                     const std::set<uint64_t>& data) {
    Finder finder(link, mds);
    KDFS_TRY(finder.find_inodes(data));
    // Files first, then the directories above them.
    KDFS_TRY(finder.find_names());
    KDFS_TRY(finder.find_names());
    return finder.take();
}

}  // namespace kdfs::tools
