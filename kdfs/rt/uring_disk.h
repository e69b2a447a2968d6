#pragma once

#include "kdfs/rt/disk.h"
#include "kdfs/rt/reactor.h"

#include <memory>
#include <string>
#include <vector>

namespace kdfs {

// Disk over one directory of the local file system. Data goes through the page cache by io_uring;
// sync() is fdatasync. Creating and removing a file syncs the directory. Opening, listing and
// asking for space are plain system calls on the loop: they are rare. The disk must outlive no
// file, and nothing of it the reactor.
class UringDisk : public Disk {
public:
    // `directory` must exist (kNotFound) and be writable. One holder at a time: kBusy if another
    // process, or another UringDisk of this one, has it open.
    static Result<std::unique_ptr<UringDisk>> open_directory(Reactor& reactor,
                                                             std::string directory);
    ~UringDisk() override;
    UringDisk(const UringDisk&) = delete;
    UringDisk& operator=(const UringDisk&) = delete;

    // kNotFound if there is no such file; kInvalidArgument for a name with a slash.
    Task<Result<std::unique_ptr<File>>> open(std::string name) override;
    // kExists if there is one already. The new file is empty.
    Task<Result<std::unique_ptr<File>>> create(std::string name) override;
    Task<Status> remove(std::string name) override;
    // Regular files only, in name order.
    Task<Result<std::vector<std::string>>> list() override;
    // Free bytes are those an ordinary user may still take.
    Task<Result<DiskSpace>> space() override;

private:
    UringDisk(Reactor& reactor, std::string directory, int directory_fd);
    Result<std::unique_ptr<File>> open_file(const std::string& name, int flags);
    Task<Status> sync_directory();
    std::string path_of(const std::string& name) const { return directory_ + "/" + name; }

    Reactor& reactor_;
    std::string directory_;
    int directory_fd_;
};

}  // namespace kdfs
