#include "tests/contract/disk_contract.h"
#include "tests/contract/sim_world.h"
#include "tests/sim/sim_disk.h"

namespace kdfs::contract {
namespace {

class SimDiskWorld : public SimWorld {
public:
    SimDiskWorld() : medium_(64 * MiB) { reopen(); }
    Disk& disk() { return *disk_; }
    void reopen() {
        medium_.cut_power(shared().random);
        disk_ = std::make_unique<sim::SimDisk>(env(), medium_);
    }

private:
    sim::DiskMedium medium_;
    std::unique_ptr<sim::SimDisk> disk_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(Sim, DiskContract, SimDiskWorld);

BufferChain letters(char letter, size_t size) { return chain_of(std::string(size, letter)); }

std::string content(const sim::FileMedium& file, uint64_t offset, uint64_t size) {
    Buffer out = Buffer::allocate(size);
    file.read(offset, out.mutable_span());
    return std::string(out.view());
}

TEST(FileMedium, PowerCutLosesUnsyncedSectorsOnly) {
    Random random(1);
    bool torn = false;
    bool lost = false;
    bool kept = false;
    for (int round = 0; round < 100; ++round) {
        sim::FileMedium file;
        file.end_change(file.begin_write(0, letters('a', 4096)));
        file.end_sync(file.begin_sync());
        file.end_change(file.begin_write(1024, letters('b', 2048)));
        file.end_change(file.begin_write(4096, letters('c', 1024)));

        file.cut_power(random);

        EXPECT_EQ(content(file, 0, 1024), std::string(1024, 'a'));
        EXPECT_EQ(content(file, 3072, 1024), std::string(1024, 'a'));
        EXPECT_GE(file.size(), 4096u);
        std::string sectors;
        for (uint64_t at = 1024; at < 3072; at += 512) {
            std::string sector = content(file, at, 512);
            EXPECT_EQ(sector, std::string(512, sector[0])) << "torn within a sector";
            sectors += sector[0];
        }
        lost |= sectors == "aaaa";
        kept |= sectors == "bbbb";
        torn |= sectors != "aaaa" && sectors != "bbbb";
    }
    EXPECT_TRUE(torn && lost && kept);
}

TEST(FileMedium, DeathOfTheProcessTearsOnlyWhatIsInFlight) {
    Random random(1);
    bool torn = false;
    for (int round = 0; round < 100; ++round) {
        sim::FileMedium file;
        file.end_change(file.begin_write(0, letters('a', 4096)));
        file.begin_write(4096, letters('b', 4096));

        file.kill_process(random);

        EXPECT_EQ(content(file, 0, 4096), std::string(4096, 'a'));
        torn |= content(file, 4096, 4096) != std::string(4096, 'b');
    }
    EXPECT_TRUE(torn);
}

TEST(FileMedium, SyncCoversWhatWasAcknowledgedBeforeIt) {
    Random random(1);
    for (int round = 0; round < 100; ++round) {
        sim::FileMedium file;
        uint64_t slow = file.begin_write(0, letters('x', 512));
        file.end_change(file.begin_write(512, letters('a', 512)));
        uint64_t sync = file.begin_sync();
        file.end_change(slow);
        file.end_change(file.begin_write(1024, letters('y', 512)));
        file.end_sync(sync);

        file.cut_power(random);

        EXPECT_EQ(content(file, 512, 512), std::string(512, 'a'));
        EXPECT_GE(file.size(), 1024u);
    }
}

}  // namespace
}  // namespace kdfs::contract
