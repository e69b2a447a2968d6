#include "storage/removal_log.h"

#include <gtest/gtest.h>

namespace kdfs::storage {
namespace {

RemovalLog::Key key_of_data(uint64_t data) {
    RemovalLog::Key key;
    key.target = TargetId(101);
    key.chain = ChainId(1);
    key.data = DataId(data);
    return key;
}

TEST(RemovalLogTest, OneThatComesAgainIsAnsweredWithWhatTheFirstTook) {
    RemovalLog log;
    auto first = log.begin(key_of_data(7), 10);
    ASSERT_TRUE(first.ok() && !*first);
    log.finish(key_of_data(7), 3);

    auto again = log.begin(key_of_data(7), 10);

    ASSERT_TRUE(again.ok());
    EXPECT_EQ(*again, std::optional<uint64_t>(3));
}

TEST(RemovalLogTest, OneThatIsUnderWayKeepsAllOthersOfTheFileBack) {
    RemovalLog log;
    ASSERT_TRUE(log.begin(key_of_data(7), 10).ok());

    EXPECT_EQ(log.begin(key_of_data(7), 10).error().code, Errc::kBusy);
    EXPECT_EQ(log.begin(key_of_data(7), 11).error().code, Errc::kBusy);
    EXPECT_TRUE(log.begin(key_of_data(8), 9).ok());
}

TEST(RemovalLogTest, OneThatFailedIsCarriedOutAgain) {
    RemovalLog log;
    ASSERT_TRUE(log.begin(key_of_data(7), 10).ok());
    log.finish(key_of_data(7), std::nullopt);

    auto again = log.begin(key_of_data(7), 10);

    ASSERT_TRUE(again.ok());
    EXPECT_FALSE(*again);
}

TEST(RemovalLogTest, OneThatALaterOneOvertookIsRefused) {
    RemovalLog log;
    ASSERT_TRUE(log.begin(key_of_data(7), 10).ok());
    log.finish(key_of_data(7), 0);
    ASSERT_TRUE(log.begin(key_of_data(7), 12).ok());
    log.finish(key_of_data(7), 0);

    EXPECT_EQ(log.begin(key_of_data(7), 11).error().code, Errc::kStaleVersion);
}

TEST(RemovalLogTest, WhatWasForgottenIsRefusedAndWhatRunsIsKept) {
    RemovalLog log;
    ASSERT_TRUE(log.begin(key_of_data(1), 1).ok());
    for (uint64_t n = 2; n < RemovalLog::kEntriesMax + 10; ++n) {
        ASSERT_TRUE(log.begin(key_of_data(n), n).ok());
        log.finish(key_of_data(n), 0);
    }

    EXPECT_EQ(log.size(), RemovalLog::kEntriesMax);
    EXPECT_EQ(log.begin(key_of_data(2), 2).error().code, Errc::kStaleVersion);
    EXPECT_EQ(log.begin(key_of_data(1), 1).error().code, Errc::kBusy);
    log.finish(key_of_data(1), 0);
}

}  // namespace
}  // namespace kdfs::storage
