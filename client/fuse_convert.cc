#include "client/fuse_convert.h"

#include "kdfs/base/types.h"

#include <limits>

namespace kdfs::client {
namespace {

constexpr int64_t kNanosecondsPerSecond = 1000000000;
constexpr uint64_t kStatBlock = 512;
// What programs are told to read and write at once.
constexpr uint64_t kPreferredBytes = 128 * KiB;

}  // namespace

struct timespec to_timespec(int64_t nanoseconds) {
    struct timespec out {};
    int64_t rest = nanoseconds % kNanosecondsPerSecond;
    out.tv_sec = nanoseconds / kNanosecondsPerSecond - (rest < 0 ? 1 : 0);
    out.tv_nsec = rest < 0 ? rest + kNanosecondsPerSecond : rest;
    return out;
}

int64_t from_timespec(const struct timespec& time) {
    constexpr int64_t kSecondsMax = std::numeric_limits<int64_t>::max() / kNanosecondsPerSecond - 1;
    int64_t seconds = time.tv_sec;
    seconds = seconds > kSecondsMax ? kSecondsMax : seconds;
    seconds = seconds < -kSecondsMax ? -kSecondsMax : seconds;
    return seconds * kNanosecondsPerSecond + time.tv_nsec;
}

struct stat to_stat(const pb::Attr& attr) {
    struct stat out {};
    out.st_ino = attr.ino();
    out.st_mode = attr.mode();
    out.st_nlink = attr.nlink();
    out.st_uid = attr.uid();
    out.st_gid = attr.gid();
    out.st_rdev = attr.rdev();
    out.st_size = static_cast<off_t>(attr.size());
    out.st_blksize = static_cast<blksize_t>(kPreferredBytes);
    out.st_blocks = static_cast<blkcnt_t>((attr.size() + kStatBlock - 1) / kStatBlock);
    out.st_atim = to_timespec(attr.atime());
    out.st_mtim = to_timespec(attr.mtime());
    out.st_ctim = to_timespec(attr.ctime());
    return out;
}

struct statvfs to_statvfs(const pb::FsStat& stat) {
    struct statvfs out {};
    constexpr uint64_t kFilesFree = uint64_t{1} << 32;
    out.f_bsize = kPreferredBytes;
    out.f_frsize = kBlockBytes;
    out.f_blocks = stat.total_bytes() / kBlockBytes;
    out.f_bfree = stat.free_bytes() / kBlockBytes;
    out.f_bavail = out.f_bfree;
    out.f_files = stat.files() + kFilesFree;
    out.f_ffree = kFilesFree;
    out.f_favail = kFilesFree;
    out.f_namemax = kNameBytesMax;
    return out;
}

}  // namespace kdfs::client
