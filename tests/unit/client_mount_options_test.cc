#include "client/mount_options.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace kdfs::client {
namespace {

using Words = std::vector<std::string>;

Words with(Words more) {
    Words words = {"--mds", "h:1", "--cluster-key", "k", "--mount", "/m"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

TEST(MountOptionsTest, NumbersTakeUnits) {
    auto options = parse_mount_options(with({"--write-buffer=128M", "--read-ahead", "2MiB"}));

    ASSERT_TRUE(options.ok());
    EXPECT_EQ(options->client.write_buffer_bytes, 128 * MiB);
    EXPECT_EQ(options->client.read_ahead_bytes, 2 * MiB);
}

TEST(MountOptionsTest, BadWordsAreNamed) {
    for (const Words& words : {with({"--nonsense"}),
                               with({"plain"}),
                               with({"--write-buffer", "many"}),
                               with({"--write-buffer", "1X"}),
                               with({"--write-buffer", "99999999999G"}),
                               with({"--foreground=yes"}),
                               with({"--log-file"})}) {
        auto options = parse_mount_options(words);

        ASSERT_FALSE(options.ok()) << words.back();
        EXPECT_EQ(options.error().code, Errc::kInvalidArgument);
    }
    EXPECT_FALSE(parse_mount_options({"--mds", "h:1"}).ok());
}

TEST(MountOptionsTest, MountHelperMeansTheSame) {
    auto words = from_mount_helper(
        {"h:1", "/m", "-o", "rw,key=/k,noauto,_netdev,nofail,noexec,write-buffer=8M"});

    ASSERT_TRUE(words.ok());
    auto options = parse_mount_options(*words);
    ASSERT_TRUE(options.ok()) << options.error().to_string();
    EXPECT_EQ(options->client.mds_address, "h:1");
    EXPECT_EQ(options->mount_point, "/m");
    EXPECT_EQ(options->key_file, "/k");
    EXPECT_EQ(options->client.write_buffer_bytes, 8 * MiB);
    EXPECT_EQ(options->system, Words{"noexec"});
    EXPECT_FALSE(options->read_only);
}

TEST(MountOptionsTest, IoUringIsUsedIfPossibleUnlessToldOtherwise) {
    EXPECT_EQ(parse_mount_options(with({}))->io_uring, RingUse::kAuto);
    EXPECT_EQ(parse_mount_options(with({"--io-uring=off"}))->io_uring, RingUse::kOff);
    EXPECT_FALSE(parse_mount_options(with({"--io-uring", "maybe"})).ok());
    for (const char* option : {"io_uring", "io_uring=on", "io-uring=on"}) {
        auto words = from_mount_helper({"h:1", "/m", "-o", std::string("key=/k,noexec,") + option});
        ASSERT_TRUE(words.ok()) << option;
        EXPECT_EQ(parse_mount_options(*words)->io_uring, RingUse::kOn) << option;
    }
}

TEST(MountOptionsTest, LibfusesOwnRingIsRefused) {
    auto options = parse_mount_options(with({"--option", "io_uring"}));

    ASSERT_FALSE(options.ok());
    EXPECT_NE(options.error().detail.find("--io-uring"), std::string::npos);
}

TEST(MountOptionsTest, MountHelperTakesReadOnly) {
    auto words = from_mount_helper({"h:1", "/m", "-o", "ro,cluster-key=/k"});

    ASSERT_TRUE(words.ok());
    EXPECT_NE(std::find(words->begin(), words->end(), "--read-only"), words->end());
    EXPECT_FALSE(from_mount_helper({"h:1"}).ok());
}

}  // namespace
}  // namespace kdfs::client
