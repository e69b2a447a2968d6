#pragma once

#include "kdfs/base/result.h"
#include "kdfs/rt/function.h"

#include <memory>
#include <string>
#include <string_view>

namespace kdfs {

// Reads a store on RocksDB without changing a byte of it, also one that a daemon has open: then it
// shows what was in the files when it was opened. Blocks; for tools.
class RocksReader {
public:
    // kNotFound if there is no store in `directory`, kCorrupt if it cannot be read.
    static Result<std::unique_ptr<RocksReader>> open(const std::string& directory);
    ~RocksReader();

    // Calls `entry` for each key from `first` on, below `beyond` (empty: to the end), in key order,
    // until it returns false.
    Status scan(std::string_view first,
                std::string_view beyond,
                Function<bool(std::string_view key, std::string_view value)> entry);

private:
    struct Db;
    explicit RocksReader(std::unique_ptr<Db> db);
    std::unique_ptr<Db> db_;
};

}  // namespace kdfs
