#include "mds/schema.h"

#include "kdfs/base/codec.h"
#include "kdfs/proto/layout.h"

#include <sys/stat.h>

#include <utility>

namespace kdfs::mds {
namespace {

// Sections that follow the fixed part of an inode record, by bit.
constexpr uint8_t kHasRdev = 1;
constexpr uint8_t kHasXattrs = 2;
constexpr uint8_t kHasData = 4;
constexpr uint8_t kHasSymlink = 8;
constexpr uint8_t kHasParent = 16;
constexpr uint8_t kHasPolicy = 32;
constexpr uint8_t kHasCut = 64;
constexpr uint8_t kSections = 127;

constexpr size_t kInodeBytesTypical = 112;

std::string number_key(Table table, uint64_t number) {
    std::string key;
    key.reserve(9);
    key.push_back(static_cast<char>(table));
    Writer(key).be64(number);
    return key;
}

std::string named_key(Table table, uint64_t number, std::string_view name) {
    std::string key;
    key.reserve(9 + name.size());
    key.push_back(static_cast<char>(table));
    Writer(key).be64(number);
    key.append(name);
    return key;
}

std::string pair_key(Table table, uint64_t first, uint64_t second) {
    std::string key = number_key(table, first);
    Writer(key).be64(second);
    return key;
}

// The first key of the next number; numbers come from a counter that never gets to the last one.
std::string number_end(Table table, uint64_t number) {
    return number == UINT64_MAX ? table_end(table) : number_key(table, number + 1);
}

std::string hex(uint64_t value) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    do {
        out.insert(out.begin(), kDigits[value % 16]);
        value /= 16;
    } while (value != 0);
    return out;
}

Error corrupt(std::string_view key, std::string_view what) {
    return {Errc::kCorrupt,
            "metadata record '" + describe_key(key) + "': " + std::string(what) +
                "; run 'kdfs fsck' and restore the metadata store from a backup if it persists"};
}

bool open_record(Reader& in) { return in.u8() == kRecordFormat; }

void write_layout(Writer& out, const pb::Layout& layout) {
    out.u64(layout.chunk_bytes());
    out.u32(layout.width());
    out.u64(layout.table());
    out.u64(layout.seed());
    out.u8(static_cast<uint8_t>(layout.replicas()));
    out.u8(static_cast<uint8_t>(layout.placement()));
    out.u64(layout.first_chain());
}

bool read_layout(Reader& in, pb::Layout& layout) {
    layout.set_chunk_bytes(in.u64());
    layout.set_width(in.u32());
    layout.set_table(in.u64());
    layout.set_seed(in.u64());
    layout.set_replicas(in.u8());
    uint8_t placement = in.u8();
    layout.set_first_chain(in.u64());
    if (!pb::Placement_IsValid(placement)) {
        return false;
    }
    layout.set_placement(static_cast<pb::Placement>(placement));
    return in.ok() && check_layout(layout).ok();
}

// Placement is stored one up, so that 0 is "not set".
void write_policy(Writer& out, const pb::Policy& policy) {
    out.u64(policy.chunk_bytes());
    out.u32(policy.width());
    out.u32(policy.replicas());
    out.u8(policy.has_placement() ? static_cast<uint8_t>(policy.placement() + 1) : 0);
}

bool read_policy(Reader& in, pb::Policy& policy) {
    policy.set_chunk_bytes(in.u64());
    policy.set_width(in.u32());
    policy.set_replicas(in.u32());
    uint8_t placement = in.u8();
    if (placement != 0) {
        if (!pb::Placement_IsValid(placement - 1)) {
            return false;
        }
        policy.set_placement(static_cast<pb::Placement>(placement - 1));
    }
    bool chunk_size_fits =
        policy.chunk_bytes() == 0 || check_chunk_bytes(policy.chunk_bytes()).ok();
    return in.ok() && chunk_size_fits && policy.width() <= kWidthMax &&
           policy.replicas() <= kReplicasMax;
}

bool has_policy(const pb::Policy& policy) {
    return policy.chunk_bytes() != 0 || policy.width() != 0 || policy.replicas() != 0 ||
           policy.has_placement();
}

uint8_t sections_of(const Inode& inode) {
    unsigned sections = 0;
    sections |= inode.rdev != 0 ? kHasRdev : 0U;
    sections |= inode.xattr_bytes != 0 ? kHasXattrs : 0U;
    sections |= inode.is_regular() ? kHasData : 0U;
    sections |= inode.is_symlink() ? kHasSymlink : 0U;
    sections |= inode.is_directory() ? kHasParent : 0U;
    sections |= has_policy(inode.policy) ? kHasPolicy : 0U;
    sections |= inode.cut != 0 ? kHasCut : 0U;
    return static_cast<uint8_t>(sections);
}

bool read_sections(Reader& in, uint8_t sections, Inode& inode) {
    if ((sections & kHasRdev) != 0) {
        inode.rdev = in.u64();
    }
    if ((sections & kHasXattrs) != 0) {
        inode.xattr_bytes = in.u32();
    }
    if ((sections & kHasData) != 0) {
        inode.data = DataId(in.u64());
        if (!read_layout(in, inode.layout)) {
            return false;
        }
    }
    if ((sections & kHasSymlink) != 0) {
        inode.symlink = in.bytes();
    }
    if ((sections & kHasParent) != 0) {
        inode.parent = InodeId(in.u64());
    }
    if ((sections & kHasPolicy) != 0 && !read_policy(in, inode.policy)) {
        return false;
    }
    if ((sections & kHasCut) != 0) {
        inode.cut = in.u64();
    }
    return true;
}

bool is_known_type(uint32_t mode) {
    switch (mode & S_IFMT) {
        case S_IFREG:
        case S_IFDIR:
        case S_IFLNK:
        case S_IFCHR:
        case S_IFBLK:
        case S_IFIFO:
        case S_IFSOCK:
            return true;
        default:
            return false;
    }
}

}  // namespace

bool Inode::is_directory() const { return S_ISDIR(mode); }
bool Inode::is_regular() const { return S_ISREG(mode); }
bool Inode::is_symlink() const { return S_ISLNK(mode); }

std::string dentry_key(InodeId parent, std::string_view name) {
    return named_key(Table::kDentry, parent.value, name);
}
std::string dentries_end(InodeId parent) { return number_end(Table::kDentry, parent.value); }
std::string inode_key(InodeId ino) { return number_key(Table::kInode, ino.value); }
std::string xattr_key(InodeId ino, std::string_view name) {
    return named_key(Table::kXattr, ino.value, name);
}
std::string xattrs_end(InodeId ino) { return number_end(Table::kXattr, ino.value); }
std::string orphan_key(InodeId ino) { return number_key(Table::kOrphan, ino.value); }
std::string dead_data_key(DataId data) { return number_key(Table::kDeadData, data.value); }
std::string trim_key(InodeId ino, uint64_t change) {
    return pair_key(Table::kTrim, ino.value, change);
}
std::string reply_key(SessionId session, uint64_t seq) {
    return pair_key(Table::kReply, session.value, seq);
}
std::string replies_end(SessionId session) { return number_end(Table::kReply, session.value); }
std::string counters_key() { return table_begin(Table::kCounters); }
std::string table_begin(Table table) { return std::string(1, static_cast<char>(table)); }
std::string table_end(Table table) {
    return std::string(1, static_cast<char>(static_cast<char>(table) + 1));
}

std::string describe_key(std::string_view key) {
    Reader in(key);
    std::string out(in.raw(key.empty() ? 0 : 1));
    if (in.remaining() >= 8) {
        out += ' ' + hex(in.be64());
        bool pair =
            out[0] == static_cast<char>(Table::kReply) || out[0] == static_cast<char>(Table::kTrim);
        if (pair && in.remaining() == 8) {
            out += ' ' + hex(in.be64());
        }
    }
    if (in.remaining() > 0) {
        out += ' ';
        out += in.rest();
    }
    return out;
}

Result<NamedKey> parse_named_key(std::string_view key) {
    Reader in(key);
    in.u8();
    NamedKey parts;
    parts.number = in.be64();
    parts.name = in.rest();
    if (!in.ok() || parts.name.empty()) {
        return corrupt(key, "the key has no number and name");
    }
    return parts;
}

Result<uint64_t> parse_number_key(std::string_view key) {
    Reader in(key);
    in.u8();
    uint64_t number = in.be64();
    if (!in.done()) {
        return corrupt(key, "the key is not a letter and a number");
    }
    return number;
}

std::string encode(const Dentry& dentry) {
    std::string value;
    Writer out(value);
    out.u8(kRecordFormat);
    out.u64(dentry.ino.value);
    out.u32(dentry.mode & S_IFMT);
    return value;
}

Result<Dentry> decode_dentry(std::string_view key, std::string_view value) {
    Reader in(value);
    bool known = open_record(in);
    Dentry dentry;
    dentry.ino = InodeId(in.u64());
    dentry.mode = in.u32();
    if (!known || !in.done() || !dentry.ino || (dentry.mode & ~uint32_t{S_IFMT}) != 0 ||
        !is_known_type(dentry.mode)) {
        return corrupt(key, "not a directory entry");
    }
    return dentry;
}

std::string encode(const Inode& inode) {
    std::string value;
    value.reserve(kInodeBytesTypical + inode.symlink.size());
    Writer out(value);
    uint8_t sections = sections_of(inode);
    out.u8(kRecordFormat);
    out.u8(sections);
    out.u32(inode.mode);
    out.u32(inode.nlink);
    out.u32(inode.uid);
    out.u32(inode.gid);
    out.u64(inode.size);
    out.u64(static_cast<uint64_t>(inode.atime));
    out.u64(static_cast<uint64_t>(inode.mtime));
    out.u64(static_cast<uint64_t>(inode.ctime));
    out.u64(inode.change);
    if ((sections & kHasRdev) != 0) {
        out.u64(inode.rdev);
    }
    if ((sections & kHasXattrs) != 0) {
        out.u32(inode.xattr_bytes);
    }
    if ((sections & kHasData) != 0) {
        out.u64(inode.data.value);
        write_layout(out, inode.layout);
    }
    if ((sections & kHasSymlink) != 0) {
        out.bytes(inode.symlink);
    }
    if ((sections & kHasParent) != 0) {
        out.u64(inode.parent.value);
    }
    if ((sections & kHasPolicy) != 0) {
        write_policy(out, inode.policy);
    }
    if ((sections & kHasCut) != 0) {
        out.u64(inode.cut);
    }
    return value;
}

Result<Inode> decode_inode(std::string_view key, std::string_view value) {
    KDFS_TRY_ASSIGN(uint64_t number, parse_number_key(key));
    Reader in(value);
    bool known = open_record(in);
    uint8_t sections = in.u8();
    Inode inode;
    inode.ino = InodeId(number);
    inode.mode = in.u32();
    inode.nlink = in.u32();
    inode.uid = in.u32();
    inode.gid = in.u32();
    inode.size = in.u64();
    inode.atime = static_cast<WallTime>(in.u64());
    inode.mtime = static_cast<WallTime>(in.u64());
    inode.ctime = static_cast<WallTime>(in.u64());
    inode.change = in.u64();
    if (!known || (sections & ~kSections) != 0 || !is_known_type(inode.mode)) {
        return corrupt(key, "not an inode of a format this version knows");
    }
    if (!read_sections(in, sections, inode) || !in.done() || sections != sections_of(inode)) {
        return corrupt(key, "the inode's parts are damaged");
    }
    return inode;
}

std::string encode(const Counters& counters) {
    std::string value;
    value.reserve(41);
    Writer out(value);
    out.u8(kRecordFormat);
    out.u64(counters.next_id);
    out.u64(counters.counts.inodes);
    out.u64(counters.counts.orphans);
    out.u64(counters.counts.gc_queued);
    out.u64(counters.counts.trims);
    return value;
}

Result<Counters> decode_counters(std::string_view key, std::string_view value) {
    Reader in(value);
    bool known = open_record(in);
    Counters counters;
    counters.next_id = in.u64();
    counters.counts.inodes = in.u64();
    counters.counts.orphans = in.u64();
    counters.counts.gc_queued = in.u64();
    counters.counts.trims = in.u64();
    if (!known || !in.done() || counters.next_id <= kRootInode.value) {
        return corrupt(key, "not the counters");
    }
    return counters;
}

std::string encode(const DeadData& dead) {
    std::string value;
    Writer out(value);
    out.u8(kRecordFormat);
    out.u64(dead.size_bytes);
    write_layout(out, dead.layout);
    return value;
}

Result<DeadData> decode_dead_data(std::string_view key, std::string_view value) {
    KDFS_TRY_ASSIGN(uint64_t number, parse_number_key(key));
    Reader in(value);
    bool known = open_record(in);
    DeadData dead;
    dead.data = DataId(number);
    dead.size_bytes = in.u64();
    if (!known || !read_layout(in, dead.layout) || !in.done()) {
        return corrupt(key, "not an entry of the collection queue");
    }
    return dead;
}

std::string encode(const Trim& trim) {
    std::string value;
    Writer out(value);
    out.u8(kRecordFormat);
    out.u64(trim.data.value);
    out.u64(trim.from_bytes);
    out.u64(trim.beyond_bytes);
    write_layout(out, trim.layout);
    return value;
}

Result<Trim> decode_trim(std::string_view key, std::string_view value) {
    Reader key_in(key);
    key_in.u8();
    Trim trim;
    trim.ino = InodeId(key_in.be64());
    trim.change = key_in.be64();
    Reader in(value);
    bool known = open_record(in);
    trim.data = DataId(in.u64());
    trim.from_bytes = in.u64();
    trim.beyond_bytes = in.u64();
    if (!key_in.done() || !known || !read_layout(in, trim.layout) || !in.done()) {
        return corrupt(key, "not a trim");
    }
    return trim;
}

std::string encode_xattr(std::string_view value) {
    std::string out;
    out.reserve(value.size() + 1);
    out.push_back(static_cast<char>(kRecordFormat));
    out.append(value);
    return out;
}

Result<std::string> decode_xattr(std::string_view key, std::string_view value) {
    if (value.empty() || value[0] != static_cast<char>(kRecordFormat) ||
        value.size() > kXattrValueBytesMax + 1) {
        return corrupt(key, "not an extended attribute");
    }
    return std::string(value.substr(1));
}

std::string encode_reply(const pb::MetaReply& reply) {
    std::string out(1, static_cast<char>(kRecordFormat));
    KDFS_CHECK(reply.AppendToString(&out));
    return out;
}

Result<pb::MetaReply> decode_reply(std::string_view key, std::string_view value) {
    pb::MetaReply reply;
    if (value.empty() || value[0] != static_cast<char>(kRecordFormat) ||
        !reply.ParseFromArray(value.data() + 1, static_cast<int>(value.size() - 1))) {
        return corrupt(key, "not a stored reply");
    }
    return reply;
}

std::string encode_orphan() { return std::string(1, static_cast<char>(kRecordFormat)); }

void fill_attr(const Inode& inode, pb::Attr& attr) {
    attr.set_ino(inode.ino.value);
    attr.set_mode(inode.mode);
    attr.set_nlink(inode.nlink);
    attr.set_uid(inode.uid);
    attr.set_gid(inode.gid);
    attr.set_rdev(inode.rdev);
    attr.set_size(inode.size);
    attr.set_atime(inode.atime);
    attr.set_mtime(inode.mtime);
    attr.set_ctime(inode.ctime);
    attr.set_change(inode.change);
    attr.set_cut(inode.cut);
    attr.set_has_xattrs(inode.xattr_bytes != 0);
    if (inode.is_regular()) {
        attr.set_data(inode.data.value);
        *attr.mutable_layout() = inode.layout;
    } else if (inode.is_symlink()) {
        attr.set_symlink(inode.symlink);
    } else if (inode.is_directory()) {
        attr.set_parent(inode.parent.value);
    }
}

}  // namespace kdfs::mds
