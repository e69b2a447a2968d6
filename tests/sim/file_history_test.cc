#include "tests/sim/file_history.h"

#include <gtest/gtest.h>

namespace kdfs::sim {
namespace {

TimePoint at(int milliseconds) { return TimePoint(std::chrono::milliseconds(milliseconds)); }

std::vector<std::byte> bytes_of(uint64_t id, uint64_t offset, uint64_t length) {
    std::vector<std::byte> out(length);
    FileHistory::fill(id, offset, out);
    return out;
}

std::vector<std::byte> zeros(uint64_t length) { return std::vector<std::byte>(length); }

class FileHistoryTest : public testing::Test {
protected:
    uint64_t write(uint64_t client, uint64_t offset, uint64_t length, int began, int ended) {
        uint64_t id = history_.begin_write(client, offset, length, at(began));
        if (ended != 0) {
            history_.end(id, at(ended));
        }
        return id;
    }
    bool allows(uint64_t offset, const std::vector<std::byte>& data, int began, int ended) {
        return !history_.check_read(offset, data.size(), data, at(began), at(ended));
    }
    FileHistory history_;
};

TEST_F(FileHistoryTest, ReadsTheLastWriteOnly) {
    uint64_t first = write(1, 0, 100, 1, 2);
    uint64_t second = write(2, 50, 100, 3, 4);
    std::vector<std::byte> good = bytes_of(first, 0, 50);
    std::vector<std::byte> tail = bytes_of(second, 50, 100);
    good.insert(good.end(), tail.begin(), tail.end());
    EXPECT_TRUE(allows(0, good, 5, 6));
    EXPECT_FALSE(allows(0, bytes_of(first, 0, 100), 5, 6)) << "overwritten before the read";
    EXPECT_FALSE(allows(0, zeros(50), 5, 6));
    EXPECT_FALSE(allows(0, bytes_of(first, 0, 40), 5, 6) &&
                 !history_.check_read(0, 50, bytes_of(first, 0, 40), at(5), at(6)))
        << "a short read";
}

TEST_F(FileHistoryTest, AReadBesideAWriteMaySeeEither) {
    uint64_t first = write(1, 0, 10, 1, 2);
    uint64_t second = write(2, 0, 10, 4, 8);
    EXPECT_TRUE(allows(0, bytes_of(first, 0, 10), 5, 6));
    EXPECT_TRUE(allows(0, bytes_of(second, 0, 10), 5, 6));
    EXPECT_FALSE(allows(0, bytes_of(second, 0, 10), 3, 3)) << "from the future";
    EXPECT_FALSE(allows(0, bytes_of(first, 0, 10), 9, 9));
}

TEST_F(FileHistoryTest, WhatALostClientDidNotSyncMayBeThereOrNot) {
    uint64_t first = write(1, 0, 10, 1, 2);
    history_.synced(1, at(3), at(3));
    uint64_t second = write(1, 0, 10, 4, 5);
    EXPECT_FALSE(allows(0, bytes_of(first, 0, 10), 6, 7));
    history_.client_lost(1);
    EXPECT_TRUE(allows(0, bytes_of(first, 0, 10), 6, 7));
    EXPECT_TRUE(allows(0, bytes_of(second, 0, 10), 6, 7));
    EXPECT_FALSE(allows(0, zeros(10), 6, 7)) << "what was synced stays";
    history_.settle_client(1, at(7), at(8));
    uint64_t third = write(2, 0, 10, 9, 10);
    EXPECT_FALSE(allows(0, bytes_of(second, 0, 10), 11, 11));
    EXPECT_TRUE(allows(0, bytes_of(third, 0, 10), 11, 11));
}

TEST_F(FileHistoryTest, WhatWasBegunAfterALossIsNotSettledWithIt) {
    uint64_t first = write(1, 0, 10, 1, 2);
    history_.client_lost(1);
    uint64_t second = write(1, 0, 10, 5, 6);
    history_.client_lost(1);
    history_.settle_client(1, at(3), at(8));
    uint64_t third = write(2, 0, 10, 9, 10);
    EXPECT_FALSE(allows(0, bytes_of(first, 0, 10), 11, 11));
    EXPECT_TRUE(allows(0, bytes_of(second, 0, 10), 11, 11)) << "it may come late";
    EXPECT_TRUE(allows(0, bytes_of(third, 0, 10), 11, 11));
}

TEST_F(FileHistoryTest, WhatAChainMayHaveLostIsThereAfterAnFsyncSaysSo) {
    uint64_t first = write(1, 0, 10, 1, 2);
    history_.synced(1, at(3), at(3));
    uint64_t second = write(1, 0, 10, 4, 5);
    history_.chains_lost();
    EXPECT_TRUE(allows(0, bytes_of(first, 0, 10), 6, 7));
    EXPECT_TRUE(allows(0, bytes_of(second, 0, 10), 6, 7));
    EXPECT_FALSE(allows(0, zeros(10), 6, 7)) << "what was synced stays";
    history_.synced(1, at(8), at(8));
    EXPECT_FALSE(allows(0, bytes_of(first, 0, 10), 9, 9));
    EXPECT_TRUE(allows(0, bytes_of(second, 0, 10), 9, 9));
}

TEST_F(FileHistoryTest, AnFsyncAfterTheOneThatReportedALossSaysNothingOfIt) {
    write(2, 0, 100, 1, 2);
    uint64_t other = write(1, 0, 10, 3, 4);
    history_.chains_lost();
    history_.told_lost(1);
    uint64_t later = write(1, 20, 10, 5, 6);
    history_.synced(1, at(7), at(7));
    EXPECT_TRUE(allows(0, bytes_of(other, 0, 10), 8, 9));
    EXPECT_TRUE(allows(0, zeros(10), 8, 9));
    EXPECT_FALSE(allows(20, zeros(10), 8, 9)) << "written and synced after the loss";
    EXPECT_TRUE(allows(20, bytes_of(later, 20, 10), 8, 9));
    EXPECT_FALSE(history_.check_size(100, at(8), at(9))) << "sizes are not on the chains";
    EXPECT_TRUE(history_.check_size(30, at(8), at(9)));
}

TEST_F(FileHistoryTest, TruncationsCutAndLeaveZeros) {
    uint64_t first = write(1, 0, 100, 1, 2);
    uint64_t cut = history_.begin_truncate(1, 40, at(3));
    EXPECT_FALSE(history_.check_size(100, at(3), at(4)));
    EXPECT_FALSE(history_.check_size(40, at(3), at(4)));
    history_.end(cut, at(4));
    EXPECT_FALSE(history_.check_size(40, at(5), at(5)));
    EXPECT_TRUE(history_.check_size(100, at(5), at(5)));
    uint64_t grow = history_.begin_truncate(1, 80, at(6));
    history_.end(grow, at(7));
    std::vector<std::byte> good = bytes_of(first, 0, 40);
    good.resize(80);
    EXPECT_TRUE(allows(0, good, 8, 9));
    EXPECT_FALSE(allows(0, bytes_of(first, 0, 80), 8, 9)) << "old bytes show through";
}

TEST_F(FileHistoryTest, AnExtensionMayBeLostWithItsClientACutMayNot) {
    write(2, 0, 100, 1, 2);
    history_.synced(2, at(3), at(3));
    uint64_t cut = history_.begin_truncate(1, 40, at(4));
    history_.end(cut, at(5));
    uint64_t grow = history_.begin_truncate(1, 80, at(6));
    history_.end(grow, at(7));
    EXPECT_TRUE(history_.check_size(40, at(8), at(8)));
    history_.client_lost(1);
    EXPECT_FALSE(history_.check_size(40, at(8), at(8)));
    EXPECT_FALSE(history_.check_size(80, at(8), at(8)));
    EXPECT_TRUE(history_.check_size(100, at(8), at(8)));
}

TEST_F(FileHistoryTest, PruningForgetsOnlyWhatNobodyCanSee) {
    uint64_t first = write(1, 0, 10, 1, 2);
    uint64_t second = write(1, 0, 10, 3, 4);
    history_.prune(at(5));
    EXPECT_EQ(history_.changes(), 2u) << "the second may still be lost";
    history_.synced(1, at(5), at(5));
    history_.prune(at(6));
    EXPECT_EQ(history_.changes(), 1u);
    EXPECT_TRUE(allows(0, bytes_of(second, 0, 10), 7, 8));
    EXPECT_FALSE(allows(0, bytes_of(first, 0, 10), 7, 8));
}

}  // namespace
}  // namespace kdfs::sim
