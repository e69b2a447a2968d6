#pragma once

#include "kdfs/base/random.h"
#include "kdfs/rt/disk.h"
#include "kdfs/rt/env.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace kdfs::sim {

// The bytes of one simulated file and what a crash can take back of them. Sparse.
class FileMedium {
public:
    static constexpr uint64_t kSectorBytes = 512;

    uint64_t size() const { return size_; }
    void read(uint64_t offset, std::span<std::byte> into) const;

    // A change becomes visible at once and stays volatile; gives a number for end_change().
    uint64_t begin_write(uint64_t offset, const BufferChain& data);
    uint64_t begin_resize(uint64_t size);
    uint64_t begin_punch(uint64_t offset, uint64_t size);
    // The change was acknowledged: it survives the death of the process.
    void end_change(uint64_t change);
    // Everything acknowledged before `begin_sync` is durable at `end_sync`.
    uint64_t begin_sync();
    void end_sync(uint64_t sync);

    // The process dies: only changes in flight may be torn. Power goes: any change that is not
    // durable may be lost, sector by sector.
    void kill_process(Random& random) { crash(random, true); }
    void cut_power(Random& random) { crash(random, false); }
    // Damages one byte, as a failing disk does.
    void flip_byte(uint64_t offset);
    // The write lands `elsewhere`, a whole number of blocks away, and nobody is told.
    uint64_t begin_misdirected(uint64_t offset, uint64_t elsewhere, const BufferChain& data);
    // Reads of these blocks fail until they are written again.
    void make_unreadable(uint64_t offset, uint64_t size);
    bool readable(uint64_t offset, uint64_t size) const;
    // Ends all damage that nobody has written over: puts the bytes there that belong there.
    void mend();
    size_t damaged_blocks() const { return damaged_.size(); }
    // Where anything was ever written.
    std::vector<uint64_t> pages() const;

    static constexpr uint64_t kPageBytes = 16 * KiB;

private:
    using Page = std::array<std::byte, kPageBytes>;
    struct Change {
        uint64_t number = 0;
        // Counts syncs begun before it was acknowledged; none while it is in flight.
        uint64_t after_sync = UINT64_MAX;
        uint64_t offset = 0;
        uint64_t old_size = 0;
        bool resized = false;
        std::vector<std::byte> old_bytes;
    };
    Change& add_change(uint64_t offset, uint64_t size, uint64_t new_size);
    void write(uint64_t offset, std::span<const std::byte> from);
    void zero(uint64_t offset, uint64_t size);
    void crash(Random& random, bool only_in_flight);
    void undo(const Change& change, Random& random);
    // What the block at `offset` should hold, before it is damaged.
    void note_damage(uint64_t offset);
    void note_overwritten(uint64_t offset, uint64_t size);

    std::map<uint64_t, std::unique_ptr<Page>> pages_;
    uint64_t size_ = 0;
    uint64_t next_change_ = 1;
    uint64_t next_sync_ = 1;
    // Oldest first.
    std::deque<Change> changes_;
    uint64_t durable_size_ = 0;
    // The size when each sync that is under way began.
    std::map<uint64_t, uint64_t> sync_sizes_;
    // Damaged blocks by offset, with what belongs there; and those that cannot be read.
    std::map<uint64_t, std::vector<std::byte>> damaged_;
    std::set<uint64_t> unreadable_;
};

// What a disk does for a while besides its work.
struct DiskTrouble {
    // Each operation takes up to this much longer.
    Duration slow_max{};
    uint32_t misdirect_ppm = 0;
};

// The files of one simulated disk: outlives the nodes that use it. Space is taken by the size of
// files, as if all of it were allocated.
class DiskMedium {
public:
    explicit DiskMedium(uint64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}
    std::map<std::string, std::shared_ptr<FileMedium>>& files() { return files_; }
    uint64_t capacity_bytes() const { return capacity_bytes_; }
    void set_capacity(uint64_t bytes) { capacity_bytes_ = bytes; }
    uint64_t used_bytes() const;
    DiskTrouble& trouble() { return trouble_; }
    void kill_process(Random& random);
    void cut_power(Random& random);

private:
    uint64_t capacity_bytes_;
    DiskTrouble trouble_;
    std::map<std::string, std::shared_ptr<FileMedium>> files_;
};

// A Disk on a medium. `env` and `medium` outlive it and its files. Faults it asks for: "disk.slow",
// "disk.read_error".
class SimDisk final : public Disk {
public:
    SimDisk(Env& env, DiskMedium& medium) : env_(env), medium_(medium) {}
    Task<Result<std::unique_ptr<File>>> open(std::string name) override;
    Task<Result<std::unique_ptr<File>>> create(std::string name) override;
    Task<Status> remove(std::string name) override;
    Task<Result<std::vector<std::string>>> list() override;
    Task<Result<DiskSpace>> space() override;

private:
    Env& env_;
    DiskMedium& medium_;
};

}  // namespace kdfs::sim
