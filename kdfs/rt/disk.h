#pragma once

#include "kdfs/base/buffer.h"
#include "kdfs/base/result.h"
#include "kdfs/base/types.h"
#include "kdfs/rt/task.h"

#include <memory>
#include <string>
#include <vector>

namespace kdfs {

// An open file. Operations may overlap and complete in any order; overlapping writes to the same
// bytes are the caller's to avoid. A File is destroyed only when no operation on it runs. Errors
// name the path.
class File {
public:
    virtual ~File() = default;
    // Exactly `size` bytes from `offset`; kIo if the file ends before or the disk fails.
    virtual Task<Result<Buffer>> read(uint64_t offset, uint64_t size) = 0;
    // All of `data` at `offset`, growing the file if needed. Volatile until sync() has returned: a
    // crash may leave any part of it, torn at 512 bytes, in any order with other writes. kNoSpace
    // when full.
    virtual Task<Status> write(uint64_t offset, BufferChain data) = 0;
    // Lets the disk begin with what was written of a range, ahead of a sync() that will need it.
    // Promises nothing; an error shows in that sync().
    virtual Task<void> start_writeback(uint64_t offset, uint64_t size) = 0;
    // Makes every write that completed before this call durable, and the file's size.
    virtual Task<Status> sync() = 0;
    // Reserves and extends to `size` bytes, reading as zeros; never shrinks.
    virtual Task<Status> allocate(uint64_t size) = 0;
    // Gives the disk space of a range back; it reads as zeros. Volatile like a write.
    virtual Task<Status> punch(uint64_t offset, uint64_t size) = 0;
    virtual uint64_t size() const = 0;
};

struct DiskSpace {
    uint64_t total_bytes = 0;
    uint64_t free_bytes = 0;
};

// The files of one directory of one node, by name without a path. Creating and removing a file is
// durable when the call returns.
class Disk {
public:
    virtual ~Disk() = default;
    virtual Task<Result<std::unique_ptr<File>>> open(std::string name) = 0;
    virtual Task<Result<std::unique_ptr<File>>> create(std::string name) = 0;
    virtual Task<Status> remove(std::string name) = 0;
    virtual Task<Result<std::vector<std::string>>> list() = 0;
    virtual Task<Result<DiskSpace>> space() = 0;
};

}  // namespace kdfs
