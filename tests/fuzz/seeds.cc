// kdfs-fuzz-seeds DIR: writes the seeds of the corpora of tests/fuzz, made by the program's own
// encoders. Inputs that were found stay as they are.

#include "kdfs/base/checksum.h"
#include "kdfs/proto/chunk.pb.h"
#include "kdfs/proto/cluster.pb.h"
#include "kdfs/proto/message_type.h"
#include "kdfs/proto/meta.pb.h"
#include "kdfs/proto/placement.h"
#include "kdfs/proto/wire.h"
#include "kdfs/rt/cluster_key.h"
#include "kdfs/rt/frame.h"
#include "kdfs/rt/tcp_handshake.h"
#include "mds/schema.h"
#include "mds/sessions.h"
#include "storage/chunk_messages.h"
#include "storage/chunk_record.h"
#include "storage/redo_entry.h"
#include "tests/fuzz/fuzz_input.h"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iostream>

namespace kdfs::fuzz {
namespace {

std::string root;

void put(const std::string& target, const std::string& name, const std::string& bytes) {
    std::filesystem::create_directories(root + "/" + target);
    std::ofstream(root + "/" + target + "/seed-" + name, std::ios::binary) << bytes;
}

std::string head(std::initializer_list<int> numbers) {
    std::string out;
    for (int number : numbers) {
        out += static_cast<char>(number);
    }
    return out;
}

std::string part(const std::string& bytes) {
    std::string out;
    put_part(out, bytes);
    return out;
}

template <class Message>
std::string body_part(const Message& message) {
    return part(message.SerializeAsString());
}

pb::Layout layout() {
    pb::Layout out;
    out.set_chunk_bytes(4 * MiB);
    out.set_width(3);
    out.set_table(1);
    out.set_seed(95);
    out.set_replicas(2);
    return out;
}

pb::HeartbeatRequest heartbeat() {
    pb::HeartbeatRequest out;
    out.set_node(2);
    out.set_incarnation(77);
    out.set_name("n2");
    out.set_address("peer:1");
    out.set_unix_address("unix:/run/k");
    out.set_failure_domain("rack1");
    out.set_map_epoch(1);
    pb::TargetReport* report = out.add_targets();
    report->set_target(2);
    report->set_total_bytes(GiB);
    report->set_free_bytes(MiB);
    report = out.add_targets();
    report->set_target(3);
    report->set_failed(true);
    report->set_failure("read error");
    return out;
}

pb::ClusterMap small_map() {
    pb::ClusterMap map;
    map.set_epoch(7);
    map.set_cluster_id("c0ffee");
    map.set_session_floor(2);
    map.add_fenced_sessions(9);
    map.set_node_lease_ms(4000);
    for (uint64_t id = 1; id <= 2; ++id) {
        pb::Node* node = map.add_nodes();
        node->set_id(id);
        node->set_name("n" + std::to_string(id));
        node->set_address("mds:1");
        node->set_online(true);
        node->set_incarnation(5);
        pb::Target* target = map.add_targets();
        target->set_id(id);
        target->set_node(id);
        target->set_weight(1);
    }
    pb::ChainTable* table = map.add_tables();
    table->set_id(1);
    table->set_replicas(2);
    for (uint64_t id = 1; id <= 3; ++id) {
        pb::Chain* chain = map.add_chains();
        chain->set_id(id);
        chain->set_version(3);
        chain->set_replicas(2);
        for (uint64_t target = 1; target <= 2; ++target) {
            pb::ChainMember* member = chain->add_members();
            member->set_target(target);
            member->set_state(target == id ? pb::MEMBER_SYNCING : pb::MEMBER_SERVING);
        }
        table->add_chains(id);
    }
    return map;
}

std::string frame(MessageType type, const std::string& body, const std::string& payload) {
    Frame out;
    out.header.type = static_cast<uint16_t>(type);
    out.header.request_id = 5;
    out.header.deadline_ms = 2000;
    out.body = Buffer::copy_of(std::string_view(body));
    out.payload = BufferChain(Buffer::copy_of(std::string_view(payload)));
    FrameBytes header = encode_header(out);
    return std::string(reinterpret_cast<const char*>(header.data()), header.size()) + body +
           payload;
}

void frames() {
    std::string beat = frame(MessageType::kHeartbeat, heartbeat().SerializeAsString(), "");
    pb::ErrorBody error;
    error.set_code(5);
    error.set_detail("not empty");
    put("frame", "two-frames", head({0}) + beat + frame(MessageType::kWrite, "", "payload"));
    put("frame", "under-a-key", head({3}) + beat + beat);
    put("frame", "hex", head({4}) + "4b 44 46 53 01 00 03 00");
    put("rpc",
        "answer-error-request",
        head({1, 23, 1}) + part("body") + part("payload") + head({3, 23, 2}) + body_part(error) +
            part("") + head({0, 40, 3}) + part("odd") + part("") + head({0, 40, 4}) + part("even") +
            part(""));
    Hello hello;
    hello.version = FrameHeader::kVersion;
    hello.kind = ChannelKind::kData;
    hello.cluster_id = "c0ffee";
    hello.self.role = PeerRole::kStorage;
    hello.self.node = NodeId(2);
    hello.self.name = "storage n2";
    put("handshake", "hello", head({0}) + encode_hello(hello));
    put("handshake", "identity", head({1}) + encode_identity("c0ffee", hello.self));
}

pb::WriteRequest write_request(uint64_t chain, const std::string& payload) {
    pb::WriteRequest out;
    out.set_chain(chain);
    out.set_chain_version(3);
    out.mutable_chunk()->set_data(19);
    out.mutable_chunk()->set_index(1);
    out.set_session(5);
    out.set_write_id(1);
    if (!payload.empty()) {
        uint64_t sum = checksum(std::string_view(payload));
        out.set_checksums(std::string(reinterpret_cast<const char*>(&sum), sizeof sum));
    }
    return out;
}

void messages() {
    put("message", "map", head({0}) + body_part(small_map()));
    put("message",
        "heartbeat",
        head({1}) + body_part(heartbeat()) + heartbeat().SerializeAsString());
    put("message", "write", head({2}) + body_part(write_request(1, "payload")) + "payload");
    put("message", "layout", head({3}) + body_part(layout()));
}

mds::Inode inode(uint32_t mode) {
    mds::Inode out;
    out.ino = InodeId(18);
    out.mode = mode;
    out.nlink = 1;
    out.uid = 1000;
    out.size = 5;
    out.atime = out.mtime = out.ctime = 1000000000;
    out.change = 3;
    if (out.is_regular()) {
        out.data = DataId(19);
        out.layout = layout();
    } else if (out.is_symlink()) {
        out.symlink = "a/b";
    } else {
        out.parent = kRootInode;
        out.nlink = 2;
        out.size = 0;
        out.policy.set_width(4);
        out.policy.set_placement(pb::PLACEMENT_LOCAL);
    }
    return out;
}

std::string record(const std::string& key, const std::string& value) {
    return part(key) + part(value);
}

std::string inode_record(mds::Inode value, uint64_t ino) {
    value.ino = InodeId(ino);
    return record(mds::inode_key(value.ino), mds::encode(value));
}

std::string name_record(const std::string& name, uint64_t ino, uint32_t mode) {
    mds::Dentry entry;
    entry.ino = InodeId(ino);
    entry.mode = mode;
    return record(mds::dentry_key(kRootInode, name), mds::encode(entry));
}

// A sound namespace of a root with a file, a symlink and a directory.
std::string tree() {
    mds::Inode top = inode(S_IFDIR | 0755);
    top.nlink = 3;
    top.size = 3;
    mds::Counters counters;
    counters.next_id = 40;
    counters.counts.inodes = 4;
    mds::Inode file = inode(S_IFREG | 0644);
    file.xattr_bytes = 9;
    return inode_record(top, 1) + inode_record(file, 18) + inode_record(inode(S_IFLNK | 0777), 20) +
           inode_record(inode(S_IFDIR | 0755), 21) + name_record("file", 18, S_IFREG) +
           name_record("link", 20, S_IFLNK) + name_record("sub", 21, S_IFDIR) +
           record(mds::counters_key(), mds::encode(counters)) +
           record(mds::xattr_key(InodeId(18), "user.x"), mds::encode_xattr("abc"));
}

std::string queues() {
    mds::DeadData dead;
    dead.data = DataId(30);
    dead.size_bytes = 5 * MiB;
    dead.layout = layout();
    mds::Trim trim;
    trim.ino = InodeId(18);
    trim.change = 3;
    trim.data = DataId(19);
    trim.from_bytes = 5;
    trim.beyond_bytes = 70000;
    trim.layout = layout();
    pb::MetaReply reply;
    reply.mutable_attr()->set_ino(18);
    mds::Session session;
    session.name = "h:1 /kdfs";
    session.node_name = "n1";
    std::string life = head({1});
    Writer(life).u64(4);
    std::string next;
    Writer(next).u64(9);
    std::string confirmed = head({1});
    Writer(confirmed).u64(2);
    return record(mds::dead_data_key(dead.data), mds::encode(dead)) +
           record(mds::trim_key(trim.ino, trim.change), mds::encode(trim)) +
           record(mds::reply_key(SessionId(7), 4), mds::encode_reply(reply)) +
           record(mds::orphan_key(InodeId(33)), mds::encode_orphan()) +
           record(mds::Sessions::key(SessionId(7)), mds::Sessions::encode(session)) +
           record("mlife", life) + record("mnext_session", next) + record("mconfirmed", confirmed) +
           record("mmap", small_map().SerializeAsString());
}

void stores() {
    put("meta_record", "tree", tree());
    put("meta_record", "queues", queues());
    put("meta_store", "tree-and-queues", tree() + queues());
    put("meta_store", "tree", tree());
    put("meta_store", "empty", "");
    storage::ChunkRecord chunk;
    chunk.version = ChunkVersion(4);
    chunk.seq = 9;
    chunk.length = 5000;
    chunk.blocks = {3, 4};
    std::string slab(4096, 'x');
    chunk.sums = {checksum(std::string_view(slab)),
                  checksum(std::string_view(slab).substr(0, 904))};
    storage::RecentWrite recent;
    recent.session = SessionId(5);
    recent.write_id = 2;
    recent.version = chunk.version;
    chunk.recent = {recent};
    storage::ChunkKey key;
    key.chain = ChainId(1);
    key.chunk.data = DataId(19);
    std::string newest = storage::encode_record(chunk);
    std::string unsealed = newest.substr(0, newest.size() - 8);
    put("chunk_record", "whole", head({0}) + part(storage::record_key(key)) + newest);
    put("chunk_record", "mended", head({1}) + part(storage::fallback_key(key, 9)) + unsealed);
    storage::ChunkRecord older = chunk;
    older.seq = 4;
    older.version = ChunkVersion(3);
    older.blocks = {5, storage::kHole};
    older.sums[1] = storage::zeros_checksum(904);
    put("chunk_store",
        "record-and-fallback",
        head({0}) + part(slab.substr(0, 1)) + part(storage::record_key(key)) + part(newest) +
            part(storage::fallback_key(key, 4)) + part(storage::encode_record(older)));
    put("chunk_store",
        "unsealed",
        head({1}) + part("x") + part(storage::record_key(key)) + part(unsealed));
    storage::BlockWrite block;
    block.extent = {3, 2};
    block.data.append(Buffer::copy_of(std::string_view(slab)));
    block.data.append(Buffer::copy_of(std::string_view(slab).substr(0, 904)));
    std::string redo = storage::encode_redo({block});
    put("chunk_record", "redo", head({0}) + part(storage::redo_key(9)) + redo);
    put("chunk_store",
        "record-and-redo",
        head({0}) + part("y") + part(storage::record_key(key)) + part(newest) +
            part(storage::redo_key(9)) + part(redo));
    std::string meta;
    Writer writer(meta);
    writer.u64(1);
    writer.u64(MiB);
    writer.u64(5);
    put("chunk_store", "own-meta", head({3}) + part("ab") + part("M") + part(meta));
}

std::string meta_step(const pb::MetaRequest& request, int mode = 0) {
    return head({0, mode}) + body_part(request);
}

pb::MetaRequest creation(const std::string& name, uint32_t mode) {
    pb::MetaRequest out;
    pb::Create& op = *out.mutable_create();
    op.set_parent(1);
    op.set_name(name);
    op.set_mode(mode);
    op.set_symlink(S_ISLNK(mode) ? "target" : "");
    op.set_open(S_ISREG(mode));
    op.set_want(pb::LEASE_EXCLUSIVE);
    op.set_want_parent(pb::LEASE_READ);
    return out;
}

// The first inode a new namespace gives out beside the root.
constexpr uint64_t kFirst = 2;

void meta_names() {
    pb::MetaRequest lookup;
    lookup.mutable_lookup()->set_parent(1);
    lookup.mutable_lookup()->set_name("file");
    lookup.mutable_lookup()->set_want(pb::LEASE_READ);
    pb::MetaRequest list;
    list.mutable_readdir()->set_ino(1);
    list.mutable_readdir()->set_entries_max(100);
    list.mutable_readdir()->set_attrs(true);
    pb::MetaRequest rename;
    rename.mutable_rename()->set_parent(1);
    rename.mutable_rename()->set_name("file");
    rename.mutable_rename()->set_new_parent(1);
    rename.mutable_rename()->set_new_name("other");
    pb::MetaRequest link;
    link.mutable_link()->set_ino(kFirst);
    link.mutable_link()->set_new_parent(1);
    link.mutable_link()->set_new_name("second");
    pb::MetaRequest remove;
    remove.mutable_remove()->set_parent(1);
    remove.mutable_remove()->set_name("other");
    put("meta_server",
        "names",
        meta_step(creation("file", S_IFREG | 0644)) + meta_step(lookup, 4) +
            meta_step(creation("dir", S_IFDIR | 0755)) +
            meta_step(creation("link", S_IFLNK | 0777)) + meta_step(list, 5) + meta_step(link) +
            meta_step(rename) + meta_step(remove, 1));
}

void meta_attributes() {
    pb::MetaRequest setattr;
    setattr.mutable_setattr()->set_ino(kFirst);
    setattr.mutable_setattr()->set_size(70000);
    setattr.mutable_setattr()->set_mode(0600);
    pb::MetaRequest flush;
    flush.mutable_flush()->set_ino(kFirst);
    flush.mutable_flush()->set_size(9);
    flush.mutable_flush()->set_mtime(5);
    flush.mutable_flush()->set_sync(true);
    pb::MetaRequest release;
    release.mutable_release()->add_items()->set_ino(kFirst);
    release.mutable_release()->mutable_items(0)->set_size(12);
    pb::MetaRequest xattr;
    xattr.mutable_setxattr()->set_ino(kFirst);
    xattr.mutable_setxattr()->set_name("user.x");
    xattr.mutable_setxattr()->set_value("abc");
    pb::MetaRequest policy;
    policy.mutable_setxattr()->set_ino(1);
    policy.mutable_setxattr()->set_name("user.kdfs.chunk_size");
    policy.mutable_setxattr()->set_value("4M");
    pb::MetaRequest open;
    open.mutable_open()->set_ino(kFirst);
    open.mutable_open()->set_write(true);
    open.mutable_open()->set_truncate(true);
    open.mutable_open()->set_want(pb::LEASE_EXCLUSIVE);
    put("meta_server",
        "attributes",
        meta_step(creation("file", S_IFREG | 0644)) + meta_step(setattr) + meta_step(flush) +
            meta_step(xattr) + meta_step(policy) + meta_step(open, 1) + meta_step(release));
}

void meta_others() {
    pb::OpenSessionRequest open;
    open.set_name("c");
    open.set_resume(1);
    open.add_held()->set_ino(kFirst);
    open.mutable_held(0)->set_mode(pb::LEASE_EXCLUSIVE);
    pb::RenewRequest renew;
    renew.set_session(1);
    pb::SyncDoneRequest done;
    done.set_chain(1);
    done.set_chain_version(1);
    done.set_target(1);
    pb::ScanMetaRequest scan;
    scan.set_entries_max(10);
    put("meta_server",
        "others",
        head({2, 0}) + body_part(open) + head({1, 0}) + body_part(renew) + head({3, 0}) +
            body_part(renew) + head({4, 0}) + body_part(heartbeat()) + head({5, 0}) +
            body_part(done) + head({6, 0}) + part("") + head({7, 0}) + body_part(scan) +
            head({8, 0}) + part("") + head({9, 0}) + part(""));
}

std::string storage_step(int type, int mode, int units, const std::string& body) {
    return head({type, mode, units % 256, units / 256}) + part(body);
}

void storage_requests() {
    pb::WriteRequest write = write_request(1, "");
    pb::WriteRequest truncate = write_request(2, "");
    truncate.set_kind(pb::WRITE_TRUNCATE);
    truncate.set_offset(100);
    truncate.set_write_id(2);
    pb::WriteRequest replace = write_request(3, "");
    replace.set_kind(pb::WRITE_REPLACE);
    replace.set_forwarded(true);
    replace.set_new_version(9);
    replace.set_target(2);
    replace.add_recent()->set_session(5);
    pb::ReadRequest read;
    read.set_chain(1);
    *read.mutable_chunk() = write.chunk();
    read.set_length(8192);
    read.set_session(5);
    pb::SyncRequest sync;
    sync.set_target(1);
    sync.add_chains()->set_chain(1);
    sync.mutable_chains(0)->set_chain_version(3);
    pb::RemoveDataRequest remove;
    remove.set_chain(1);
    remove.set_data(19);
    pb::RemoveDataRequest forwarded = remove;
    forwarded.set_forwarded(true);
    forwarded.set_target(2);
    forwarded.add_indexes(1);
    forwarded.add_versions(4);
    pb::ListChunksRequest list;
    list.set_target(1);
    list.set_chain(1);
    list.set_entries_max(10);
    pb::CloneDataRequest clone;
    clone.set_chain(1);
    clone.set_from_data(19);
    clone.set_to_data(20);
    clone.set_beyond_index(5);
    put("storage_server",
        "write-read-clone-remove",
        storage_step(0, 0, 100, write.SerializeAsString()) +
            storage_step(1, 1, 0, read.SerializeAsString()) +
            storage_step(2, 2, 0, sync.SerializeAsString()) +
            storage_step(4, 0, 0, list.SerializeAsString()) +
            storage_step(5, 0, 0, clone.SerializeAsString()) +
            storage_step(3, 0, 0, remove.SerializeAsString()));
    put("storage_server",
        "members",
        storage_step(0, 0, 3, truncate.SerializeAsString()) +
            storage_step(0, 1, 70, replace.SerializeAsString()) +
            storage_step(3, 1, 0, forwarded.SerializeAsString()) + storage_step(6, 0, 0, ""));
}

std::string answer(int kind, const std::string& body, int units) {
    return head({kind}) + part(body) + head({units % 256, units / 256});
}

void client_answers() {
    pb::MetaReply made;
    made.mutable_attr()->set_ino(18);
    made.mutable_attr()->set_mode(S_IFREG | 0644);
    made.mutable_attr()->set_nlink(1);
    made.mutable_attr()->set_data(19);
    *made.mutable_attr()->mutable_layout() = layout();
    made.mutable_grant()->set_mode(pb::LEASE_EXCLUSIVE);
    made.mutable_grant()->set_lease_seq(1);
    pb::MetaReply listed;
    listed.add_entries()->set_name("name");
    *listed.mutable_entries(0)->mutable_attr() = made.attr();
    listed.set_eof(true);
    pb::RecallRequest recall;
    recall.set_ino(18);
    recall.set_lease_seq(1);
    pb::MapUpdate update;
    *update.mutable_map() = small_map();
    put("client",
        "create-write-fsync-read",
        head({0, 4, 1, 10, 14, 12}) + answer(0, made.SerializeAsString(), 0) + answer(0, "", 0) +
            answer(0, "", 0) + answer(0, "", 0));
    put("client",
        "list-lookup-open-recall",
        head({0, 5, 2, 0, 9, 11, 12}) + answer(0, listed.SerializeAsString(), 0) +
            answer(0, made.SerializeAsString(), 0) + answer(5, recall.SerializeAsString(), 0) +
            answer(6, update.SerializeAsString(), 0) + answer(4, head({36}), 0));
    pb::OpenSessionReply opened;
    opened.set_session(5);
    opened.set_lease_ms(8000);
    *opened.mutable_map() = small_map();
    put("client",
        "own-opening",
        head({1, 3, 5, 6, 8}) + answer(0, opened.SerializeAsString(), 0) +
            answer(0, made.SerializeAsString(), 2));
}

void texts() {
    put("options", "daemon", head({0}) + "--number=7\n--flag\n--bytes\n64KiB\nword\n--list=a\n");
    put("options", "file", head({1}) + "number=7\n# text\nflag=yes\ntime=250ms\nlist=a\nlist=b\n");
    put("options",
        "fuse",
        head({2}) + "--mds\nh:1\n--cluster-key=/k\n--mount\n/m\n--read-ahead\n8M\n");
    put("options", "mount", head({3}) + "h:1\n/m\n-o\nro,key=/k,_netdev,noexec,write-buffer=4M\n");
    put("options", "command", head({4}) + "--dir=/d\n--nodes\n5\n--force\nx\n");
    put("options", "size", head({5}) + "18014398509481984KiB");
    put("options", "time", head({5}) + "153722867280min");
    put("state_file",
        "settings",
        head({0}) + R"({"format":1,"cluster_id":"c","nodes":3,"replicas":2,"targets_per_node":1,)" +
            R"("port_base":0,"capacity_bytes":0,"mount":"/m"})");
    put("state_file", "target", head({1}) + "kdfs-target 1\nnode 2\ntarget 3\ncluster c0ffee\n");
    put("state_file", "key", head({2}) + std::string(64, 'a') + "\n");
    put("store_log", "records", head({1, 9, 0, 255, 3, 0}) + "one" + head({5, 0}) + "three");
    put("store_log", "mark", head({2, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0}) + "ab" + "behind");
}

}  // namespace
}  // namespace kdfs::fuzz

int main(int argc, char** argv) {
    using namespace kdfs::fuzz;
    if (argc != 2) {
        std::cerr << "usage: kdfs-fuzz-seeds DIR\n";
        return 2;
    }
    root = argv[1];
    frames();
    messages();
    stores();
    meta_names();
    meta_attributes();
    meta_others();
    storage_requests();
    client_answers();
    texts();
    return 0;
}
