#include "tests/unit/mds_support.h"

#include "kdfs/base/check.h"

#include <algorithm>
#include <utility>

namespace kdfs::mds::testing {

Result<std::optional<std::string>> TestKv::get(std::string_view key) {
    bool there = !cold_ || keys_.contains(key);
    for (const auto& [first, beyond] : ranges_) {
        there = there || (first <= key && (beyond.empty() || key < beyond));
    }
    if (!there) {
        return Error(Errc::kWouldBlock, "cold");
    }
    auto at = medium_.map().find(key);
    return at == medium_.map().end() ? std::optional<std::string>()
                                     : std::optional<std::string>(at->second);
}

Result<std::vector<KvEntry>> TestKv::scan(std::string_view first,
                                          std::string_view beyond,
                                          uint64_t entries_max) {
    if (cold_ && !ranges_.contains({std::string(first), std::string(beyond)})) {
        return Error(Errc::kWouldBlock, "cold");
    }
    std::vector<KvEntry> found;
    for (auto at = medium_.map().lower_bound(first);
         at != medium_.map().end() && found.size() < entries_max &&
         (beyond.empty() || at->first < beyond);
         ++at) {
        found.push_back({at->first, at->second});
    }
    return found;
}

void TestKv::bring_in(const Namespace::Missing& missing) {
    if (missing.beyond.empty()) {
        keys_.insert(missing.first);
    } else {
        ranges_.insert({missing.first, missing.beyond});
    }
}

Task<Status> TestKv::load(std::string key) {
    keys_.insert(std::move(key));
    co_return Status();
}

Task<Status> TestKv::load_range(std::string first, std::string beyond, uint64_t entries_max) {
    (void)entries_max;
    ranges_.insert({std::move(first), std::move(beyond)});
    co_return Status();
}

Status TestKv::apply(const KvBatch& batch) {
    medium_.apply(batch);
    medium_.mark_synced(medium_.applied());
    return {};
}

Task<Status> TestKv::sync() { co_return Status(); }

TestTree::TestTree() : store(medium), space(store) {
    pb::Policy policy;
    policy.set_chunk_bytes(kChunkBytesDefault);
    policy.set_width(kWidthDefault);
    policy.set_replicas(2);
    policy.set_placement(pb::PLACEMENT_STRIPED);
    KvBatch batch;
    KDFS_CHECK(space.format(now, policy, batch).ok());
    commit(batch);
}

OpContext TestTree::context() {
    OpContext context;
    context.session = SessionId(7);
    context.now = now;
    context.choose_layout = [](const pb::Policy& policy) -> Result<pb::Layout> {
        pb::Layout layout;
        layout.set_chunk_bytes(policy.chunk_bytes());
        layout.set_width(policy.width());
        layout.set_replicas(policy.replicas());
        layout.set_placement(policy.placement());
        layout.set_table(3);
        layout.set_seed(5);
        return layout;
    };
    context.is_open = [this](InodeId ino) { return open.contains(ino); };
    context.holds_exclusive = [this](InodeId ino) { return exclusive.contains(ino); };
    context.written_by_other = [this](InodeId ino) { return written_by_other.contains(ino); };
    return context;
}

void TestTree::commit(const KvBatch& batch) { KDFS_CHECK(store.apply(batch).ok()); }

Result<pb::MetaReply> TestTree::run(const pb::MetaRequest& request) {
    now += 1000;
    auto footprint = space.footprint(request);
    KDFS_CHECK(footprint.ok());
    KvBatch batch;
    auto reply = space.apply(request, context(), batch);
    effects = space.effects();
    EXPECT_TRUE(reply.ok() || batch.empty()) << request.ShortDebugString();
    check_footprint(*footprint, batch);
    check_footprint(space.touched(), batch);
    check_cold(request, reply, batch);
    commit(batch);
    return reply;
}

void TestTree::check_footprint(const std::vector<Touched>& footprint, const KvBatch& batch) {
    std::set<InodeId> changeable;
    std::set<InodeId> listed;
    for (const Touched& one : footprint) {
        EXPECT_TRUE(listed.insert(one.ino).second) << "twice: inode " << one.ino.value;
        if (one.access == Access::kChange) {
            changeable.insert(one.ino);
        }
    }
    for (const KvBatch::Change& change : batch.changes()) {
        if (change.key[0] != static_cast<char>(Table::kInode)) {
            continue;
        }
        InodeId ino(parse_number_key(change.key).value());
        EXPECT_TRUE(changeable.contains(ino)) << "not listed: inode " << ino.value;
    }
}

void TestTree::check_cold(const pb::MetaRequest& request,
                          const Result<pb::MetaReply>& warm,
                          const KvBatch& batch) {
    constexpr int kLoadsMax = 10000;
    TestKv cold_store(medium, true);
    Namespace cold(cold_store);
    auto ends = store.get(Namespace::forgotten_ends_key());
    if (ends.ok() && *ends) {
        EXPECT_TRUE(cold.restore_ends(**ends).ok());
    }
    for (int loads = 0; loads < kLoadsMax; ++loads) {
        KvBatch cold_batch;
        auto reply = cold.apply(request, context(), cold_batch);
        if (!reply.ok() && reply.error().code == Errc::kWouldBlock) {
            EXPECT_TRUE(cold_batch.empty());
            cold_store.bring_in(cold.missing());
            continue;
        }
        EXPECT_EQ(outcome(reply), outcome(warm));
        if (reply.ok() && warm.ok()) {
            EXPECT_EQ(reply->SerializeAsString(), warm->SerializeAsString());
        }
        ASSERT_EQ(cold_batch.changes().size(), batch.changes().size());
        for (size_t i = 0; i < batch.changes().size(); ++i) {
            EXPECT_EQ(cold_batch.changes()[i].key, batch.changes()[i].key);
            EXPECT_EQ(cold_batch.changes()[i].value, batch.changes()[i].value);
        }
        return;
    }
    FAIL() << "does not end: " << request.ShortDebugString();
}

NamespaceReport TestTree::fsck() const {
    NamespaceCheck check;
    for (const auto& [key, value] : medium.map()) {
        check.add(key, value);
    }
    return check.finish();
}

uint64_t TestTree::ino_behind(InodeId parent, const std::string& name) {
    if (client_may_have_open) {
        return 0;
    }
    auto record = store.get(dentry_key(parent, name));
    if (!record.ok() || !record->has_value()) {
        return 0;
    }
    return decode_dentry(dentry_key(parent, name), **record).value().ino.value;
}

Result<pb::MetaReply> TestTree::create(InodeId parent, const std::string& name, uint32_t mode) {
    pb::MetaRequest request;
    pb::Create& op = *request.mutable_create();
    op.set_parent(parent.value);
    op.set_name(name);
    op.set_mode(mode);
    op.set_uid(10);
    op.set_gid(20);
    op.set_exclusive(true);
    return run(request);
}

Result<pb::MetaReply> TestTree::symlink(InodeId parent,
                                        const std::string& name,
                                        const std::string& to) {
    pb::MetaRequest request;
    pb::Create& op = *request.mutable_create();
    op.set_parent(parent.value);
    op.set_name(name);
    op.set_mode(S_IFLNK);
    op.set_symlink(to);
    op.set_exclusive(true);
    return run(request);
}

Result<pb::MetaReply> TestTree::lookup(InodeId parent, const std::string& name) {
    pb::MetaRequest request;
    request.mutable_lookup()->set_parent(parent.value);
    request.mutable_lookup()->set_name(name);
    return run(request);
}

Result<pb::MetaReply> TestTree::link(InodeId ino, InodeId parent, const std::string& name) {
    pb::MetaRequest request;
    request.mutable_link()->set_ino(ino.value);
    request.mutable_link()->set_new_parent(parent.value);
    request.mutable_link()->set_new_name(name);
    return run(request);
}

Result<pb::MetaReply> TestTree::unlink(InodeId parent, const std::string& name) {
    pb::MetaRequest request;
    request.mutable_remove()->set_parent(parent.value);
    request.mutable_remove()->set_name(name);
    request.mutable_remove()->set_not_open_ino(ino_behind(parent, name));
    return run(request);
}

Result<pb::MetaReply> TestTree::rmdir(InodeId parent, const std::string& name) {
    pb::MetaRequest request;
    request.mutable_remove()->set_parent(parent.value);
    request.mutable_remove()->set_name(name);
    request.mutable_remove()->set_directory(true);
    request.mutable_remove()->set_not_open_ino(ino_behind(parent, name));
    return run(request);
}

Result<pb::MetaReply> TestTree::rename(InodeId parent,
                                       const std::string& name,
                                       InodeId new_parent,
                                       const std::string& new_name,
                                       uint32_t flags) {
    pb::MetaRequest request;
    pb::Rename& op = *request.mutable_rename();
    op.set_parent(parent.value);
    op.set_name(name);
    op.set_new_parent(new_parent.value);
    op.set_new_name(new_name);
    op.set_flags(flags);
    op.set_not_open_ino(ino_behind(new_parent, new_name));
    return run(request);
}

Result<pb::MetaReply> TestTree::getattr(InodeId ino) {
    pb::MetaRequest request;
    request.mutable_getattr()->set_ino(ino.value);
    return run(request);
}

Result<pb::MetaReply> TestTree::set_size(InodeId ino, uint64_t size) {
    pb::MetaRequest request;
    request.mutable_setattr()->set_ino(ino.value);
    request.mutable_setattr()->set_size(size);
    return run(request);
}

Result<pb::MetaReply> TestTree::readdir(InodeId ino,
                                        const std::string& after,
                                        uint32_t entries_max) {
    pb::MetaRequest request;
    request.mutable_readdir()->set_ino(ino.value);
    request.mutable_readdir()->set_after(after);
    request.mutable_readdir()->set_entries_max(entries_max);
    request.mutable_readdir()->set_attrs(true);
    return run(request);
}

Result<pb::MetaReply> TestTree::setxattr(InodeId ino,
                                         const std::string& name,
                                         const std::string& value,
                                         uint32_t flags) {
    pb::MetaRequest request;
    request.mutable_setxattr()->set_ino(ino.value);
    request.mutable_setxattr()->set_name(name);
    request.mutable_setxattr()->set_value(value);
    request.mutable_setxattr()->set_flags(flags);
    return run(request);
}

Result<pb::MetaReply> TestTree::getxattr(InodeId ino, const std::string& name) {
    pb::MetaRequest request;
    request.mutable_getxattr()->set_ino(ino.value);
    request.mutable_getxattr()->set_name(name);
    return run(request);
}

Result<pb::MetaReply> TestTree::removexattr(InodeId ino, const std::string& name) {
    pb::MetaRequest request;
    request.mutable_removexattr()->set_ino(ino.value);
    request.mutable_removexattr()->set_name(name);
    return run(request);
}

InodeId TestTree::make(InodeId parent, const std::string& name, uint32_t mode) {
    auto reply = create(parent, name, mode);
    EXPECT_EQ(outcome(reply), "ok") << name;
    return InodeId(reply.value().attr().ino());
}

InodeId TestTree::mkdir(InodeId parent, const std::string& name) {
    return make(parent, name, S_IFDIR | 0755);
}

pb::Attr TestTree::stat(InodeId ino) {
    auto reply = getattr(ino);
    EXPECT_EQ(outcome(reply), "ok") << "inode " << ino.value;
    return reply.value().attr();
}

}  // namespace kdfs::mds::testing
