#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/kv/kv_store.h"
#include "kdfs/kv/mem_kv.h"
#include "mds/fsck.h"
#include "mds/namespace.h"
#include "mds/schema.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace kdfs::mds::testing {

// A store without a loop. In the cold mode each key has to be loaded before it can be read.
class TestKv final : public KvStore {
public:
    explicit TestKv(MemKvMedium& medium, bool cold = false) : medium_(medium), cold_(cold) {}

    Result<std::optional<std::string>> get(std::string_view key) override;
    Result<std::vector<KvEntry>> scan(std::string_view first,
                                      std::string_view beyond,
                                      uint64_t entries_max) override;
    Task<Status> load(std::string key) override;
    Task<Status> load_range(std::string first, std::string beyond, uint64_t entries_max) override;
    Status apply(const KvBatch& batch) override;
    Status flush() override { return {}; }
    Task<Status> sync() override;

    void bring_in(const Namespace::Missing& missing);

private:
    MemKvMedium& medium_;
    bool cold_;
    std::set<std::string, std::less<>> keys_;
    std::set<std::pair<std::string, std::string>> ranges_;
};

// A namespace in memory. Every run() checks what holds for any operation: the footprint lists each
// inode the batch changes, an error leaves the batch empty, and a store that has to load each key
// first gives the same answer and changes.
class TestTree {
public:
    TestTree();

    Result<pb::MetaReply> run(const pb::MetaRequest& request);

    // Builders; they run and return the reply.
    Result<pb::MetaReply> create(InodeId parent,
                                 const std::string& name,
                                 uint32_t mode = S_IFREG | 0644);
    Result<pb::MetaReply> symlink(InodeId parent, const std::string& name, const std::string& to);
    Result<pb::MetaReply> lookup(InodeId parent, const std::string& name);
    Result<pb::MetaReply> link(InodeId ino, InodeId parent, const std::string& name);
    // With not_open_ino set as a client does that has nothing open.
    Result<pb::MetaReply> unlink(InodeId parent, const std::string& name);
    Result<pb::MetaReply> rmdir(InodeId parent, const std::string& name);
    Result<pb::MetaReply> rename(InodeId parent,
                                 const std::string& name,
                                 InodeId new_parent,
                                 const std::string& new_name,
                                 uint32_t flags = 0);
    Result<pb::MetaReply> getattr(InodeId ino);
    Result<pb::MetaReply> set_size(InodeId ino, uint64_t size);
    Result<pb::MetaReply> readdir(InodeId ino, const std::string& after, uint32_t entries_max);
    Result<pb::MetaReply> setxattr(InodeId ino,
                                   const std::string& name,
                                   const std::string& value,
                                   uint32_t flags = 0);
    Result<pb::MetaReply> getxattr(InodeId ino, const std::string& name);
    Result<pb::MetaReply> removexattr(InodeId ino, const std::string& name);

    // The same for what has to succeed.
    InodeId make(InodeId parent, const std::string& name, uint32_t mode = S_IFREG | 0644);
    InodeId mkdir(InodeId parent, const std::string& name);
    pb::Attr stat(InodeId ino);

    void commit(const KvBatch& batch);
    NamespaceReport fsck() const;

    WallTime now = 1000;
    std::set<InodeId> open;
    std::set<InodeId> exclusive;
    std::set<InodeId> written_by_other;
    bool client_may_have_open = false;  // unlink and rename do not say not_open_ino
    Effects effects;
    MemKvMedium medium;
    TestKv store;
    Namespace space;

private:
    OpContext context();
    void check_footprint(const std::vector<Touched>& footprint, const KvBatch& batch);
    void check_cold(const pb::MetaRequest& request,
                    const Result<pb::MetaReply>& warm,
                    const KvBatch& batch);
    uint64_t ino_behind(InodeId parent, const std::string& name);
};

// The code of a failure, or none for a success.
template <class T>
std::string outcome(const Result<T>& result) {
    return result.ok() ? "ok" : std::string(errc_name(result.error().code));
}

}  // namespace kdfs::mds::testing
