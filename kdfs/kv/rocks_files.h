#pragma once

#include <memory>

namespace rocksdb {
class Env;
}  // namespace rocksdb

namespace kdfs {

// The files of a RocksDB store as the default environment keeps them, but for its logs.
//
// A log is written with zeros ahead of its records, so that a sync of it changes neither its size
// nor where its blocks lie: then the file system has nothing to put into a journal of its own,
// which costs several times what the record itself does. A log ends at the first header of zeros:
// closing cuts it there, and after a crash the reader stops there, also if records behind that
// place reached the disk. A log takes its first record only once the one before it is on stable
// storage. So what a crash leaves is always a prefix of the records.
//
// Any number of stores may share one; each has one log that grows.
std::unique_ptr<rocksdb::Env> make_rocks_files();

}  // namespace kdfs
