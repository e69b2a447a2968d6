#pragma once

#include "kdfs/proto/meta.pb.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cstdint>
#include <ctime>

namespace kdfs::client {

// Between the cluster's messages and the system's structures. Pure.
struct stat to_stat(const pb::Attr& attr);
struct timespec to_timespec(int64_t nanoseconds);
int64_t from_timespec(const struct timespec& time);
struct statvfs to_statvfs(const pb::FsStat& stat);

}  // namespace kdfs::client
