#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/proto/meta.pb.h"
#include "mds/namespace.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kdfs::mds {

// Keys and records of the namespace. Part of the stored format: a record starts with a format byte,
// numbers in keys are big-endian so that they sort, numbers in records little-endian. Decoders
// take any bytes and fail with kCorrupt naming the key.

// The first byte of each key. All tables of the metadata server are listed here.
enum class Table : char {
    kCounters = 'c',  // c                        -> Counters
    kDentry = 'd',    // d | be64 parent | name   -> Dentry
    kDeadData = 'g',  // g | be64 data            -> DeadData
    kInode = 'i',     // i | be64 ino             -> Inode
    kOrphan = 'o',    // o | be64 ino             -> format byte
    kReply = 'r',     // r | be64 session | be64 seq -> MetaReply
    kTrim = 't',      // t | be64 ino | be64 change  -> Trim
    kXattr = 'x',     // x | be64 ino | name      -> format byte, value
    // Of the server: cluster map, sessions and whatever else it keeps.
    kManager = 'm',
    kSession = 's',
};

inline constexpr uint8_t kRecordFormat = 1;

struct Dentry {
    InodeId ino;
    uint32_t mode = 0;  // type bits
};

// Everything of an inode but its xattrs.
// Invariants: a directory has no data, an `entries` count in `size`, 2 + its subdirectories in
// `nlink` and its parent in `parent`; only regular files have `data` and `layout`.
struct Inode {
    InodeId ino;  // from the key
    uint32_t mode = 0;
    uint32_t nlink = 0;
    uint32_t uid = 0;
    uint32_t gid = 0;
    uint64_t rdev = 0;
    uint64_t size = 0;
    WallTime atime = 0;
    WallTime mtime = 0;
    WallTime ctime = 0;
    uint64_t change = 0;
    uint64_t cut = 0;          // `change` when the size was last set; it only grows between
    uint32_t xattr_bytes = 0;  // names and values together
    DataId data;
    pb::Layout layout;
    std::string symlink;
    InodeId parent;
    pb::Policy policy;  // a directory's own

    bool is_directory() const;
    bool is_regular() const;
    bool is_symlink() const;
};

// One record; every operation that makes or removes an inode writes it anew.
struct Counters {
    uint64_t next_id = 2;  // inode numbers and data ids come from one sequence, never reused
    Counts counts;
};

// Keys. The *_range functions give the first key beyond a prefix.
std::string dentry_key(InodeId parent, std::string_view name);
std::string dentries_end(InodeId parent);
std::string inode_key(InodeId ino);
std::string xattr_key(InodeId ino, std::string_view name);
std::string xattrs_end(InodeId ino);
std::string orphan_key(InodeId ino);
std::string dead_data_key(DataId data);
std::string trim_key(InodeId ino, uint64_t change);
std::string reply_key(SessionId session, uint64_t seq);
std::string replies_end(SessionId session);
std::string counters_key();
std::string table_begin(Table table);
std::string table_end(Table table);
// The key as people read it: "d 1 name", numbers in hexadecimal.
std::string describe_key(std::string_view key);

// Parts of keys; kCorrupt if they have another shape.
struct NamedKey {
    uint64_t number = 0;
    std::string_view name;
};
Result<NamedKey> parse_named_key(std::string_view key);   // kDentry, kXattr
Result<uint64_t> parse_number_key(std::string_view key);  // kInode, kOrphan, kDeadData

std::string encode(const Dentry& dentry);
std::string encode(const Inode& inode);
std::string encode(const Counters& counters);
std::string encode(const DeadData& dead);
std::string encode(const Trim& trim);
std::string encode_xattr(std::string_view value);
std::string encode_reply(const pb::MetaReply& reply);
std::string encode_orphan();

Result<Dentry> decode_dentry(std::string_view key, std::string_view value);
Result<Inode> decode_inode(std::string_view key, std::string_view value);
Result<Counters> decode_counters(std::string_view key, std::string_view value);
Result<DeadData> decode_dead_data(std::string_view key, std::string_view value);
Result<Trim> decode_trim(std::string_view key, std::string_view value);
Result<std::string> decode_xattr(std::string_view key, std::string_view value);
Result<pb::MetaReply> decode_reply(std::string_view key, std::string_view value);

// As the client sees it.
void fill_attr(const Inode& inode, pb::Attr& attr);

}  // namespace kdfs::mds
