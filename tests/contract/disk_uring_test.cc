#include "kdfs/rt/uring_disk.h"
#include "tests/contract/disk_contract.h"
#include "tests/contract/real_world.h"

namespace kdfs::contract {
namespace {

class UringDiskWorld : public RealWorld {
public:
    UringDiskWorld() { reopen(); }
    Disk& disk() { return *disk_; }
    void reopen() {
        disk_.reset();
        auto disk = UringDisk::open_directory(reactor(), directory_.path());
        KDFS_CHECK(disk.ok());
        disk_ = std::move(*disk);
    }
    const std::string& path() const { return directory_.path(); }

private:
    TemporaryDirectory directory_;
    std::unique_ptr<UringDisk> disk_;
};

TEST(UringDiskTest, DirectoryIsHeldByOne) {
    UringDiskWorld world;

    auto second = UringDisk::open_directory(world.reactor(), world.path());

    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().code, Errc::kBusy);
    EXPECT_NE(second.error().detail.find(world.path()), std::string::npos);
}

TEST(UringDiskTest, MissingDirectoryIsNamed) {
    RealWorld world;

    auto disk = UringDisk::open_directory(world.reactor(), "/nonexistent/kdfs");

    ASSERT_FALSE(disk.ok());
    EXPECT_EQ(disk.error().code, Errc::kNotFound);
    EXPECT_NE(disk.error().detail.find("/nonexistent/kdfs"), std::string::npos);
}

struct Cases {
    static Task<void> open_odd_names(Disk& disk) {
        std::vector<std::string> names;
        names.emplace_back("");
        names.emplace_back("..");
        names.emplace_back("a/b");
        for (const std::string& name : names) {
            auto file = co_await disk.create(name);
            EXPECT_FALSE(file.ok());
            if (!file.ok()) {
                EXPECT_EQ(file.error().code, Errc::kInvalidArgument);
            }
        }
    }

    static Task<void> write_forever(std::unique_ptr<File> file) {
        while (true) {
            Status done = co_await file->write(0, chain_of(pattern(1 * MiB, 1)));
            expect_ok(done);
        }
    }

    static Task<void> leave_a_write_behind(Disk& disk, TaskScope& scope) {
        auto file = co_await disk.create("slab");
        KDFS_CO_ASSERT_OK(file);
        scope.spawn_now(write_forever(std::move(*file)));
    }
};

TEST(UringDiskTest, NamesWithASlashAreRefused) {
    UringDiskWorld world;
    world.run(Cases::open_odd_names(world.disk()));
}

TEST(UringDiskTest, FrameMayGoWhileItsWriteIsWithTheKernel) {
    UringDiskWorld world;
    TaskScope scope(world.scheduler());
    world.run(Cases::leave_a_write_behind(world.disk(), scope));
    // The scope goes first, then the loop, which waits for the kernel.
}

}  // namespace

INSTANTIATE_TYPED_TEST_SUITE_P(Uring, DiskContract, UringDiskWorld);

}  // namespace kdfs::contract
