#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace rocksdb {
class Env;
}  // namespace rocksdb

namespace kdfs {

// How far the files of one store go that consist of records: logs and manifests. Any thread.
class RecordSizes {
public:
    struct File {
        std::string name;  // in the store's directory
        uint64_t bytes = 0;
        bool operator==(const File&) const = default;
    };

    // The newest log, with all that RocksDB handed over; the one before it, which is durable once
    // the newest one has something; and as much of the manifest as is on stable storage.
    std::vector<File> newest() const;

    void begin_log(std::string name);
    void log_grew(const std::string& name, uint64_t bytes);
    void manifest_synced(std::string name, uint64_t bytes);

private:
    mutable std::mutex mutex_;
    File log_;
    File log_before_;
    File manifest_;
};

// The files of a RocksDB store as the default environment keeps them, but for its logs.
//
// A log is written with zeros ahead of its records, so that a sync of it changes neither its size
// nor where its blocks lie: then the file system has nothing to put into a journal of its own,
// which costs several times what the record itself does. A log ends at the first header of zeros:
// closing cuts it there, and after a crash the reader stops there, also if records behind that
// place reached the disk. A log takes its first record only once the one before it is on stable
// storage. So what a crash leaves is always a prefix of the records.
//
// For one store, which has one log that grows. `sizes` is kept up to date, unless it is null.
std::unique_ptr<rocksdb::Env> make_rocks_files(std::shared_ptr<RecordSizes> sizes = nullptr);

}  // namespace kdfs
