// The client library when its session ends or its connection goes: the servers are stand-ins that
// speak the protocol and share one file system, which the test changes as others would.

#include "client/block_sums.h"
#include "client/file_client.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/wire.h"
#include "mds/lease_table.h"
#include "tests/sim/sim_node.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace kdfs::sim {
namespace {

constexpr const char* kMds = "mds:1";
constexpr const char* kStorage = "storage1:1";
constexpr uint64_t kPage = 1024;
constexpr uint64_t kFirstListed = 1000;
// Inodes, leases and changes that have such numbers are long in messages.
constexpr uint64_t kManyFirst = uint64_t{1} << 60;

// What the servers have, and what they were asked.
struct Shared {
    // The one file, of data id `data`, and the chunks there are by data id.
    pb::Attr file;
    std::map<uint64_t, std::string> chunks;
    // Sessions that are over; those among them that only the storage daemon knows of.
    std::set<uint64_t> over;
    uint64_t sessions = 0;
    uint64_t lease_seq = 0;
    bool storage_serves = true;
    bool storage_damaged = false;
    uint64_t reads_refused = 0;
    // Files that directories list in pages, with read leases, from inode kFirstListed on.
    uint64_t listed = 0;
    uint64_t getattrs = 0;
    // Of the last request that resumed a session.
    pb::OpenSessionRequest resumed;
    // The inode whose lease is refused then, if any.
    uint64_t refused = 0;
    // What an open for writing gives; what asks leases back.
    pb::LeaseMode grants = pb::LEASE_READ;
    std::shared_ptr<RpcConnection> connection;
    // Of its one chain.
    uint64_t losses = 0;
    uint64_t epoch = 2;
    bool answers_meta = true;
    bool meta_damaged = false;
    // How often a file without names is looked at before it ends.
    std::optional<uint64_t> looks_left;
    uint32_t names_left = 0;  // what those looks say
    Event meta_answered;
    // The sessions that opened the file, wrote to its chunks and closed it, in order.
    std::vector<uint64_t> opened;
    std::vector<uint64_t> wrote;
    std::vector<uint64_t> closed;

    Shared() {
        file.set_ino(7);
        file.set_mode(S_IFREG | 0644);
        file.set_nlink(1);
        file.mutable_layout()->set_chunk_bytes(kChunkBytesMin);
        file.mutable_layout()->set_width(1);
        file.mutable_layout()->set_replicas(1);
        file.mutable_layout()->set_table(1);
        put(1, "of old");
    }
    // As after a long life of the cluster.
    void grow_old() {
        lease_seq = kManyFirst;
        file.set_cut(kManyFirst);
        file.set_change(kManyFirst);
    }
    // The file as somebody else left it.
    void put(uint64_t data, std::string text) {
        file.set_data(data);
        file.set_size(text.size());
        file.set_change(file.change() + 1);
        file.set_cut(file.change());
        chunks.clear();
        chunks[data] = std::move(text);
    }
};

Error fenced() { return {Errc::kFenced, "the session is over"}; }

void fill_map(const Shared& shared, pb::ClusterMap& map) {
    map.set_epoch(shared.epoch);
    map.set_cluster_id("test");
    pb::Node* node = map.add_nodes();
    node->set_id(1);
    node->set_address(kStorage);
    node->set_online(true);
    pb::Target* target = map.add_targets();
    target->set_id(1);
    target->set_node(1);
    pb::Chain* chain = map.add_chains();
    chain->set_id(1);
    chain->set_version(1);
    chain->set_losses(shared.losses);
    pb::ChainMember* member = chain->add_members();
    member->set_target(1);
    member->set_state(pb::MEMBER_SERVING);
    pb::ChainTable* table = map.add_tables();
    table->set_id(1);
    table->add_chains(1);
}

class FakeMds final : public Process {
public:
    FakeMds(Env& env, Shared& shared)
        : shared_(shared),
          server_(env, [this](RpcRequest request) { return answer(std::move(request)); }) {}
    Task<Status> start() override { return server_.listen(kMds); }
    Task<void> stop() override { return server_.stop(); }

private:
    Task<Result<RpcReply>> answer(RpcRequest request) {
        if (request.type == MessageType::kOpenSession) {
            shared_.connection = request.connection;
            co_return open(*decode<pb::OpenSessionRequest>(request.body));
        }
        if (request.type == MessageType::kRenew) {
            auto body = decode<pb::RenewRequest>(request.body);
            if (shared_.over.contains(body->session())) {
                co_return fenced();
            }
            co_return RpcReply(encode(pb::RenewReply()));
        }
        if (request.type == MessageType::kMeta) {
            Result<RpcReply> reply = meta(*decode<pb::MetaRequest>(request.body));
            if (!shared_.answers_meta) {
                co_await shared_.meta_answered.wait();
            }
            co_return reply;
        }
        co_return RpcReply(Buffer());
    }
    Result<RpcReply> open(const pb::OpenSessionRequest& request) {
        if (shared_.over.contains(request.resume())) {
            return fenced();
        }
        pb::OpenSessionReply reply;
        reply.set_session(request.resume());
        if (request.resume() == 0) {
            reply.set_session(++shared_.sessions);
        } else {
            shared_.resumed = request;
            if (shared_.refused != 0) {
                reply.add_refused(shared_.refused);
            }
        }
        reply.set_lease_ms(8000);
        fill_map(shared_, *reply.mutable_map());
        return RpcReply(encode(reply));
    }
    Result<RpcReply> meta(const pb::MetaRequest& request) {
        if (shared_.over.contains(request.session())) {
            return fenced();
        }
        for (const pb::ReleaseOne& item : request.release().items()) {
            if (!item.still_open()) {
                shared_.closed.push_back(request.session());
            }
        }
        pb::MetaReply reply;
        shared_.getattrs += request.has_getattr() ? 1 : 0;
        bool speaks_of_file = request.has_getattr() || request.has_open() || request.has_flush();
        if (shared_.meta_damaged) {
            return Error(Errc::kCorrupt, "the store is damaged");
        }
        if (request.has_getattr() && shared_.looks_left) {
            if (shared_.looks_left == 0U) {
                return Error(Errc::kStaleHandle, "inode 7 is gone");
            }
            --*shared_.looks_left;
            *reply.mutable_attr() = shared_.file;
            reply.mutable_attr()->set_nlink(shared_.names_left);
            return RpcReply(encode(reply));
        }
        if (speaks_of_file && shared_.file.nlink() == 0) {
            return Error(Errc::kStaleHandle, "inode 7 is gone");
        }
        if (speaks_of_file) {
            *reply.mutable_attr() = shared_.file;
            reply.mutable_attr()->set_ino(request.getattr().ino() + request.open().ino() +
                                          request.flush().ino());
        }
        if (request.has_getattr() || request.has_open()) {
            grant(*reply.mutable_grant());
            if (request.open().write()) {
                reply.mutable_grant()->set_mode(shared_.grants);
            }
        }
        if (request.has_readdir()) {
            uint64_t done = std::stoull("0" + request.readdir().after());
            for (uint64_t i = done; i < std::min(shared_.listed, done + kPage); ++i) {
                pb::DirEntry* entry = reply.add_entries();
                entry->set_name(std::to_string(i + 1));
                entry->set_ino(kFirstListed + i);
                *entry->mutable_attr() = shared_.file;
                entry->mutable_attr()->set_ino(kFirstListed + i);
                grant(*entry->mutable_grant());
            }
        }
        if (request.has_remove()) {
            reply.mutable_attr()->set_ino(kFirstListed);
            reply.set_orphaned(true);
        }
        if (request.has_open()) {
            shared_.opened.push_back(request.session());
        }
        return RpcReply(encode(reply));
    }
    void grant(pb::Grant& grant) {
        grant.set_mode(pb::LEASE_READ);
        grant.set_lease_seq(++shared_.lease_seq);
    }

    Shared& shared_;
    RpcServer server_;
};

class FakeStorage final : public Process {
public:
    FakeStorage(Env& env, Shared& shared)
        : shared_(shared),
          server_(env, [this](RpcRequest request) { return answer(std::move(request)); }) {}
    Task<Status> start() override { return server_.listen(kStorage); }
    Task<void> stop() override { return server_.stop(); }

private:
    Task<Result<RpcReply>> answer(RpcRequest request) {
        if (request.type == MessageType::kWrite) {
            co_return write(*decode<pb::WriteRequest>(request.body));
        }
        if (request.type != MessageType::kRead) {
            co_return RpcReply(Buffer());
        }
        auto body = decode<pb::ReadRequest>(request.body);
        if (!shared_.storage_serves || shared_.over.contains(body->session())) {
            ++shared_.reads_refused;
        }
        if (!shared_.storage_serves) {
            co_return Error(Errc::kNotServing, "as the test says");
        }
        if (shared_.over.contains(body->session())) {
            co_return fenced();
        }
        if (shared_.storage_damaged) {
            co_return Error(Errc::kCorrupt, "block 0 has a wrong checksum");
        }
        // Of a chunk that is gone there is nothing, which reads as zeros.
        BufferChain data(Buffer::copy_of(std::string_view(shared_.chunks[body->chunk().data()])));
        pb::ReadReply reply;
        reply.set_checksums(client::block_sums(0, data));
        co_return RpcReply(encode(reply), std::move(data));
    }
    Result<RpcReply> write(const pb::WriteRequest& request) {
        shared_.wrote.push_back(request.session());
        if (!shared_.storage_serves) {
            return Error(Errc::kNotServing, "as the test says");
        }
        if (shared_.over.contains(request.session())) {
            return fenced();
        }
        return RpcReply(encode(pb::WriteReply()));
    }

    Shared& shared_;
    RpcServer server_;
};

class ClientProcess final : public Process {
public:
    explicit ClientProcess(Env& env) : env_(env), files_(env, options(), nullptr) {}
    Task<Status> start() override {
        co_return co_await files_.start(env_.now() + std::chrono::seconds(30));
    }
    Task<void> stop() override { (void)co_await files_.stop(); }
    client::FileClient& files() { return files_; }

private:
    static client::ClientOptions options() {
        client::ClientOptions out;
        out.mds_address = kMds;
        out.name = "client";
        out.read_ahead_bytes = 0;
        out.inodes_max = 200000;
        return out;
    }
    Env& env_;
    client::FileClient files_;
};

PeerIdentity named(std::string name) {
    PeerIdentity out;
    out.name = std::move(name);
    return out;
}

class ClientSessionTest : public ::testing::Test {
protected:
    ClientSessionTest() : sim_(1) {
        sim_.faults.set_enabled(false);
        SimNode::Factory mds = [this](SimNode&, Env& env) {
            return std::make_unique<FakeMds>(env, shared_);
        };
        SimNode::Factory storage = [this](SimNode&, Env& env) {
            return std::make_unique<FakeStorage>(env, shared_);
        };
        SimNode::Factory client = [](SimNode&, Env& env) {
            return std::make_unique<ClientProcess>(env);
        };
        mds_ = std::make_unique<SimNode>(sim_, named("mds"), mds);
        storage_ = std::make_unique<SimNode>(sim_, named("storage1"), storage);
        client_ = std::make_unique<SimNode>(sim_, named("client"), client);
        mds_->boot();
        storage_->boot();
        client_->boot();
        pass(std::chrono::seconds(1));
    }

    void pass(Duration time) {
        TimePoint until = sim_.clock.now() + time;
        while (sim_.clock.run_one(until)) {
        }
    }
    client::FileClient& files() { return dynamic_cast<ClientProcess&>(client_->process()).files(); }
    template <class T>
    static Task<void> keep(Task<T> task, std::shared_ptr<std::optional<T>> out) {
        T value = co_await std::move(task);
        out->emplace(std::move(value));
    }
    // Empty until the task ends, which may be later.
    template <class T>
    std::shared_ptr<std::optional<T>> begin(Task<T> task) {
        auto out = std::make_shared<std::optional<T>>();
        client_->spawn(keep<T>(std::move(task), out));
        return out;
    }
    template <class T>
    std::optional<T> run(Task<T> task) {
        auto out = begin(std::move(task));
        TimePoint until = sim_.clock.now() + std::chrono::seconds(60);
        while (!out->has_value() && sim_.clock.run_one(until)) {
        }
        return std::move(*out);
    }
    void restart_mds() {
        mds_->kill();
        mds_->boot();
        pass(std::chrono::seconds(5));
    }
    Task<bool> list_all() {
        std::string after;
        while (true) {
            auto page = co_await files().list(kRootInode, after);
            if (!page.ok()) {
                co_return false;
            }
            if (page->entries_size() == 0) {
                co_return true;
            }
            after = page->entries().rbegin()->name();
        }
    }
    Task<bool> open_many(uint64_t count) {
        client::OpenOptions options;
        options.write = true;
        for (uint64_t i = 0; i < count; ++i) {
            auto opened = co_await files().open(InodeId(kManyFirst + i), options);
            if (!opened.ok()) {
                co_return false;
            }
            many_.push_back(opened->id);
        }
        co_return true;
    }
    // Files under the exclusive lease: nothing of this is told to the server at once.
    Task<bool> extend_many() {
        Buffer last = Buffer::copy_of(std::string_view("x"));
        for (client::OpenId id : many_) {
            client::WriteOp op(id, kFileBytesMax - 1, last);
            auto written = co_await files().write(std::move(op));
            if (!written.ok()) {
                co_return false;
            }
        }
        co_return true;
    }
    client::OpenId open_file(bool write = false) {
        client::OpenOptions options;
        options.write = write;
        auto opened = run(files().open(InodeId(7), options));
        EXPECT_TRUE(opened && opened->ok());
        return opened && opened->ok() ? (*opened)->id : 0;
    }
    std::shared_ptr<std::optional<Result<uint64_t>>> begin_write(client::OpenId id,
                                                                 uint64_t offset) {
        client::WriteOp op(id, offset, Buffer::copy_of(std::string_view("written")));
        return begin(files().write(std::move(op)));
    }
    // Empty if it was taken.
    std::optional<Errc> code_of_write(client::OpenId id, uint64_t offset) {
        client::WriteOp op(id, offset, Buffer::copy_of(std::string_view("written")));
        auto written = run(files().write(std::move(op)));
        EXPECT_TRUE(written);
        if (!written || written->ok()) {
            return std::nullopt;
        }
        return written->error().code;
    }
    // As the server does; nobody waits for the answer.
    void ask_lease_back() {
        pb::RecallRequest request;
        request.set_ino(7);
        request.set_keep(pb::LEASE_NONE);
        request.set_lease_seq(shared_.lease_seq);
        tell_client(MessageType::kRecall, encode(request));
    }
    // The last serving member of the chain had a power cut.
    void lose_commits() {
        ++shared_.losses;
        ++shared_.epoch;
        pb::MapUpdate update;
        fill_map(shared_, *update.mutable_map());
        tell_client(MessageType::kMapUpdate, encode(update));
    }
    void tell_client(MessageType type, Buffer body) {
        RpcCall call(type, std::move(body), sim_.clock.now() + std::chrono::seconds(60));
        auto answer = std::make_shared<std::optional<Result<RpcReply>>>();
        mds_->spawn(keep<Result<RpcReply>>(shared_.connection->call(std::move(call)), answer));
    }
    static std::string text_of(const std::optional<Result<BufferChain>>& data) {
        if (!data) {
            return "(nothing yet)";
        }
        if (!data->ok()) {
            return data->error().to_string();
        }
        return std::string((*data)->flatten().view());
    }

    SimShared sim_;
    Shared shared_;
    std::unique_ptr<SimNode> mds_;
    std::vector<client::OpenId> many_;  // opened by open_many()
    std::unique_ptr<SimNode> storage_;
    std::unique_ptr<SimNode> client_;
};

TEST_F(ClientSessionTest, AReadOfAClientThatWasShutOutGoesOnUnderItsNextSession) {
    client::OpenId id = open_file();
    EXPECT_EQ(text_of(run(files().read(id, 0, 100))), "of old");
    // The map with the fence is out; the metadata server cannot be asked.
    mds_->kill();
    shared_.over.insert(1);
    shared_.put(2, "of another client");

    auto data = begin(files().read(id, 0, 100));
    pass(std::chrono::seconds(1));
    EXPECT_EQ(text_of(*data), "(nothing yet)");
    EXPECT_GE(shared_.reads_refused, 1U);
    mds_->boot();
    pass(std::chrono::seconds(5));

    EXPECT_EQ(text_of(*data), "of another client");
    EXPECT_EQ(shared_.sessions, 2U);
}

TEST_F(ClientSessionTest, AReadUnderWayWhileTheSessionChangesGoesByWhatTheFileIsNow) {
    client::OpenId id = open_file();
    shared_.storage_serves = false;
    auto data = begin(files().read(id, 0, 100));
    pass(std::chrono::seconds(1));
    ASSERT_GE(shared_.reads_refused, 1U);
    // A stranger ends the session, empties the file and writes it anew.
    shared_.over.insert(1);
    shared_.put(2, "of another client");
    pass(std::chrono::seconds(5));
    ASSERT_EQ(shared_.sessions, 2U);

    shared_.storage_serves = true;
    pass(std::chrono::seconds(2));

    EXPECT_EQ(text_of(*data), "of another client");
}

TEST_F(ClientSessionTest, EachOpenFileReportsLostDataOnceWhoeverElseClosesIt) {
    shared_.grants = pb::LEASE_EXCLUSIVE;
    client::OpenId one = open_file(true);
    client::OpenId two = open_file(true);
    auto wrote = run(files().write(client::WriteOp(one, 0, Buffer::copy_of("of one"))));
    ASSERT_TRUE(wrote && wrote->ok());
    shared_.over.insert(1);
    pass(std::chrono::seconds(5));
    ASSERT_EQ(shared_.sessions, 2U);

    // The kernel may hide the error of a write.
    wrote = run(files().write(client::WriteOp(one, 0, Buffer::copy_of("again"))));
    EXPECT_EQ(wrote->error().code, Errc::kLostData);
    wrote = run(files().write(client::WriteOp(one, 0, Buffer::copy_of("again"))));
    EXPECT_TRUE(wrote->ok());
    // Processes that were forked close what they inherited, and do not look.
    EXPECT_EQ(files().flush(one).error().code, Errc::kLostData);
    EXPECT_EQ(files().flush(one).error().code, Errc::kLostData);
    EXPECT_EQ(run(files().fsync(one, false))->error().code, Errc::kLostData);
    EXPECT_TRUE(run(files().fsync(one, false))->ok());
    EXPECT_TRUE(files().flush(one).ok());
    EXPECT_EQ(run(files().fsync(two, false))->error().code, Errc::kLostData);
    EXPECT_TRUE(files().flush(two).ok());
    EXPECT_TRUE(files().flush(open_file(true)).ok());
}

TEST_F(ClientSessionTest, AReadFailsWhenNoSessionIsToBeHadForLong) {
    client::OpenId id = open_file();
    mds_->kill();
    shared_.over.insert(1);

    auto data = begin(files().read(id, 0, 100));
    pass(files().options().patience + std::chrono::seconds(10));

    ASSERT_TRUE(data->has_value());
    EXPECT_EQ((*data)->error().code, Errc::kFenced);
}

TEST_F(ClientSessionTest, AFileWithoutNamesThatEndsWhileItIsReadDoesNotReadAsZeros) {
    client::OpenId id = open_file();
    shared_.over.insert(1);
    pass(std::chrono::seconds(5));
    ASSERT_EQ(shared_.sessions, 2U);
    shared_.looks_left = 1;
    shared_.chunks.clear();

    auto data = run(files().read(id, 0, 100));

    ASSERT_TRUE(data.has_value());
    EXPECT_EQ(data->error().code, Errc::kStaleHandle);
}

TEST_F(ClientSessionTest, AFileThatLosesItsNameAndEndsWhileItIsReadDoesNotReadAsZeros) {
    client::OpenId id = open_file();
    shared_.over.insert(1);
    pass(std::chrono::seconds(5));
    shared_.looks_left = 1;
    shared_.names_left = 1;
    shared_.chunks.clear();

    auto data = run(files().read(id, 0, 100));

    ASSERT_TRUE(data.has_value());
    EXPECT_EQ(data->error().code, Errc::kStaleHandle);
}

TEST_F(ClientSessionTest, WhatEveryMemberSaysIsDamagedIsReportedSoon) {
    client::OpenId id = open_file();
    shared_.storage_damaged = true;

    auto data = begin(files().read(id, 0, 100));
    pass(std::chrono::seconds(5));

    ASSERT_TRUE(data->has_value());
    EXPECT_EQ((*data)->error().code, Errc::kCorrupt);
}

TEST_F(ClientSessionTest, DamagedMetadataIsReportedAtOnce) {
    shared_.meta_damaged = true;

    auto opened = begin(files().open(InodeId(7), client::OpenOptions()));
    pass(std::chrono::seconds(1));

    ASSERT_TRUE(opened->has_value());
    EXPECT_EQ((*opened)->error().code, Errc::kCorrupt);
}

TEST_F(ClientSessionTest, OfMoreLeasesThanOneRequestNamesTheOldestOfClosedFilesAreGivenUp) {
    open_file();
    shared_.grow_old();
    shared_.listed = 120000;
    ASSERT_EQ(run(list_all()), true);

    restart_mds();

    EXPECT_EQ(shared_.sessions, 1U);
    const auto& held = shared_.resumed.held();
    EXPECT_LT(static_cast<uint64_t>(held.size()), shared_.listed);
    EXPECT_GT(shared_.resumed.ByteSizeLong(), client::Session::kHeldBytesMax - 4 * KiB);
    EXPECT_EQ(held[0].ino(), 7U);
    EXPECT_TRUE(held[0].open());
    // Of what was given up the client asks the server again; what it kept it still has.
    uint64_t last = kFirstListed + shared_.listed - 1;
    EXPECT_EQ(held[held.size() - 1].ino(), last);
    uint64_t before = shared_.getattrs;
    ASSERT_TRUE(run(files().getattr(InodeId(last)))->ok());
    EXPECT_EQ(shared_.getattrs, before);
    ASSERT_TRUE(run(files().getattr(InodeId(kFirstListed)))->ok());
    EXPECT_EQ(shared_.getattrs, before + 1);
}

TEST_F(ClientSessionTest, OfMoreOpenFilesThanOneRequestNamesTheSessionGoesOn) {
    constexpr uint64_t kFiles = 70000;
    shared_.grants = pb::LEASE_EXCLUSIVE;
    shared_.grow_old();
    ASSERT_EQ(run(open_many(kFiles)), true);

    restart_mds();

    EXPECT_EQ(shared_.sessions, 1U);
    EXPECT_LT(static_cast<uint64_t>(shared_.resumed.held_size()), kFiles);
    EXPECT_GT(shared_.resumed.ByteSizeLong(), client::Session::kHeldBytesMax - 4 * KiB);
    EXPECT_TRUE(run(files().getattr(InodeId(kManyFirst)))->ok());
}

TEST_F(ClientSessionTest, MoreUnwrittenFilesThanOneRequestNamesCostTheSessionAndNotTheProcess) {
    constexpr uint64_t kFiles = 40000;
    shared_.grants = pb::LEASE_EXCLUSIVE;
    shared_.grow_old();
    ASSERT_EQ(run(open_many(kFiles)), true);
    // The server goes before it can be told.
    mds_->kill();
    ASSERT_EQ(run(extend_many()), true);

    mds_->boot();
    pass(std::chrono::seconds(5));

    EXPECT_EQ(shared_.sessions, 2U);
}

// Otherwise the server recalls from a client what it is about to give back by itself.
TEST(LeaseBoundsTest, TheServerTakesMoreLeasesOfASessionThanAClientKeeps) {
    client::ClientOptions options;
    EXPECT_GE(mds::LeaseTable::kLeasesMax, options.inodes_max + options.inodes_max / 4);
}

// The recall outlives the session it came under: it must not say of the next one that the server
// knows it as a writer.
TEST_F(ClientSessionTest, AFileThatIsGoneIsNotWrittenUnderTheSessionAfterTheOneThatHadIt) {
    shared_.grants = pb::LEASE_EXCLUSIVE;
    client::OpenId id = open_file(true);
    shared_.storage_serves = false;
    EXPECT_EQ(code_of_write(id, 0), std::nullopt);
    ask_lease_back();
    pass(std::chrono::seconds(1));
    ASSERT_FALSE(shared_.wrote.empty());
    // The session ends and the file is removed, before what is dirty is in the chunks.
    shared_.over.insert(1);
    shared_.file.set_nlink(0);
    pass(std::chrono::seconds(5));
    ASSERT_EQ(shared_.sessions, 2U);
    shared_.storage_serves = true;

    EXPECT_EQ(code_of_write(id, 0), Errc::kLostData);
    EXPECT_EQ(code_of_write(id, 0), Errc::kStaleHandle);
    EXPECT_EQ(code_of_write(id, 0), Errc::kStaleHandle);

    EXPECT_EQ(shared_.wrote.back(), 1U);
}

TEST_F(ClientSessionTest, AWriteThatWaitsForItsTurnIsNotMadeUnderTheNextSession) {
    shared_.grants = pb::LEASE_NONE;
    client::OpenId id = open_file(true);
    shared_.storage_serves = false;
    auto first = begin_write(id, 0);
    pass(std::chrono::seconds(1));
    ASSERT_FALSE(shared_.wrote.empty());
    auto second = begin_write(id, 0);
    pass(std::chrono::seconds(1));
    shared_.over.insert(1);
    shared_.file.set_nlink(0);
    pass(std::chrono::seconds(5));
    ASSERT_EQ(shared_.sessions, 2U);
    shared_.storage_serves = true;
    pass(std::chrono::seconds(5));

    ASSERT_TRUE(first->has_value() && second->has_value());
    EXPECT_EQ((*first)->error().code, Errc::kFenced);
    EXPECT_EQ((*second)->error().code, Errc::kFenced);
    EXPECT_EQ(shared_.wrote.back(), 1U);
}

// Opened under a lease, so that the server heard of it from the resumption only.
TEST_F(ClientSessionTest, AFileThatAResumptionNamedAsOpenIsClosedWhenItsLeaseWasRefused) {
    ASSERT_TRUE(run(files().getattr(InodeId(7)))->ok());
    client::OpenId id = open_file();
    ASSERT_TRUE(shared_.opened.empty());
    shared_.refused = 7;
    restart_mds();
    ASSERT_TRUE(shared_.resumed.held_size() == 1 && shared_.resumed.held(0).open());

    files().release(id);
    pass(std::chrono::seconds(1));

    EXPECT_EQ(shared_.closed, std::vector<uint64_t>{1});
}

TEST_F(ClientSessionTest, AnAnswerThatComesAfterItsSessionEndedGrantsNothing) {
    shared_.answers_meta = false;
    client::OpenOptions options;
    auto opened = begin(files().open(InodeId(7), options));
    pass(std::chrono::seconds(1));
    shared_.over.insert(1);
    pass(std::chrono::seconds(5));
    ASSERT_EQ(shared_.sessions, 2U);
    ASSERT_EQ(shared_.opened, std::vector<uint64_t>{1});

    shared_.answers_meta = true;
    shared_.meta_answered.set();
    pass(std::chrono::seconds(1));

    ASSERT_TRUE(opened->has_value());
    EXPECT_TRUE((*opened)->ok());
    EXPECT_EQ(shared_.opened, (std::vector<uint64_t>{1, 2}));
}

TEST_F(ClientSessionTest, AFileThatTheServerIsToldIsClosedIsNotOpenedWithoutAskingIt) {
    shared_.grants = pb::LEASE_NONE;
    client::OpenId id = open_file(true);
    shared_.answers_meta = false;
    files().release(id);
    pass(std::chrono::seconds(1));
    ASSERT_EQ(shared_.closed.size(), 1U);
    // The release is still under way when the client gets a lease.
    shared_.answers_meta = true;
    ASSERT_TRUE(run(files().getattr(InodeId(7)))->ok());
    ASSERT_EQ(files().lease(InodeId(7)), pb::LEASE_READ);

    open_file();

    EXPECT_EQ(shared_.opened.size(), 2U);
    shared_.meta_answered.set();
    pass(std::chrono::seconds(1));
    open_file();
    EXPECT_EQ(shared_.opened.size(), 2U) << "the lease is enough again";
}

TEST_F(ClientSessionTest, OfAFileItDoesNotKnowTheServerIsToldThatItIsClosedWhenItsLastNameGoes) {
    ASSERT_TRUE(run(files().unlink(kRootInode, "unknown"))->ok());
    pass(std::chrono::seconds(1));
    EXPECT_EQ(shared_.closed.size(), 1U);
}

TEST_F(ClientSessionTest, WhatIsCachedIsNotUsedOnceTheLeaseMayBeOver) {
    ASSERT_TRUE(run(files().getattr(InodeId(7)))->ok());
    sim_.network.set_blocked(client_->machine(), mds_->machine(), true);
    pass(std::chrono::seconds(4));
    EXPECT_NE(files().cached_attr(InodeId(7)), nullptr);

    pass(std::chrono::seconds(4));

    EXPECT_EQ(files().cached_attr(InodeId(7)), nullptr);
}

TEST_F(ClientSessionTest, AnFsyncFailsOnceWhereCommitsBeforeItMayBeLost) {
    shared_.grants = pb::LEASE_EXCLUSIVE;
    client::OpenId id = open_file(true);
    ASSERT_EQ(code_of_write(id, 0), std::nullopt);
    pass(std::chrono::seconds(3));
    ASSERT_FALSE(shared_.wrote.empty());

    lose_commits();
    pass(std::chrono::seconds(1));

    auto synced = run(files().fsync(id, false));
    ASSERT_TRUE(synced && !synced->ok());
    EXPECT_EQ(synced->error().code, Errc::kLostData);
    EXPECT_TRUE(run(files().fsync(id, false))->ok());
    // What is written under the map that says so is not lost.
    ASSERT_EQ(code_of_write(id, 0), std::nullopt);
    pass(std::chrono::seconds(3));
    EXPECT_TRUE(run(files().fsync(id, false))->ok());
}

}  // namespace
}  // namespace kdfs::sim
