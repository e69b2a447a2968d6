#pragma once

#include "kdfs/base/result.h"

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

namespace kdfs::tools {

// Small files and paths, for the tools only: they block. Every error names the path.

// The whole file; kTooBig above `bytes_max`, kNotFound if there is none.
Result<std::string> read_file(const std::string& path, size_t bytes_max);
// The last `bytes_max` bytes of a file.
Result<std::string> read_tail(const std::string& path, size_t bytes_max);
// Replaces the file in one step: a reader sees the old or the new text, also after a power cut.
Status write_file(const std::string& path, std::string_view text, mode_t mode);
// Makes one directory; nothing if it is there.
Status make_directory(const std::string& path, mode_t mode);
// Names without "." and "..", sorted; empty if it cannot be read.
std::vector<std::string> list_directory(const std::string& path);
Result<std::string> read_link(const std::string& path);
// Absolute, with "." and ".." and double slashes resolved by text alone, so that it also works for
// a path that does not exist, or whose file system does not answer.
std::string absolute_path(const std::string& path);
struct FreeSpace {
    // The existing folder that was looked at: `path` or the nearest above it.
    std::string at;
    uint64_t free_bytes = 0;
};
// What may be written on the disk of `path`, which need not exist yet.
FreeSpace free_space(const std::string& path);
// True if `path` is `folder` or below it; both absolute.
bool path_within(const std::string& path, const std::string& folder);

}  // namespace kdfs::tools
