#include "kdfs/kv/rocks_reader.h"

#include "kdfs/kv/rocks_files.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <unistd.h>

namespace kdfs {

struct RocksReader::Db {
    std::string directory;
    std::unique_ptr<rocksdb::Env> files;
    std::unique_ptr<rocksdb::DB> db;
};

RocksReader::RocksReader(std::unique_ptr<Db> db) : db_(std::move(db)) {}
RocksReader::~RocksReader() = default;

Result<std::unique_ptr<RocksReader>> RocksReader::open(const std::string& directory) {
    if (access((directory + "/CURRENT").c_str(), F_OK) != 0) {
        return Error(Errc::kNotFound,
                     directory +
                         " holds no store of kdfs (no file CURRENT); give the directory of "
                         "a metadata server or of a target");
    }
    rocksdb::Options options;
    options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
    auto db = std::make_unique<Db>();
    db->files = make_rocks_files();
    options.env = db->files.get();
    rocksdb::DB* opened = nullptr;
    rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, directory, &opened);
    if (!status.ok()) {
        return Error(Errc::kCorrupt, directory + " cannot be read: " + status.ToString());
    }
    db->directory = directory;
    db->db.reset(opened);
    return std::unique_ptr<RocksReader>(new RocksReader(std::move(db)));
}

Status RocksReader::scan(std::string_view first,
                         std::string_view beyond,
                         Function<bool(std::string_view key, std::string_view value)> entry) {
    rocksdb::ReadOptions options;
    options.verify_checksums = true;
    std::unique_ptr<rocksdb::Iterator> at(db_->db->NewIterator(options));
    for (at->Seek(rocksdb::Slice(first.data(), first.size())); at->Valid(); at->Next()) {
        std::string_view key(at->key().data(), at->key().size());
        if (!beyond.empty() && key >= beyond) {
            break;
        }
        if (!entry(key, std::string_view(at->value().data(), at->value().size()))) {
            break;
        }
    }
    if (!at->status().ok()) {
        return Error(Errc::kCorrupt, db_->directory + ": " + at->status().ToString());
    }
    return {};
}

}  // namespace kdfs
