#include "kdfs/base/config.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace kdfs {
namespace {

struct Settings {
    std::string listen = "127.0.0.1:7000";
    std::vector<std::string> targets;
    uint64_t replicas = 2;
    uint64_t chunk = 1 * MiB;
    Duration lease = std::chrono::seconds(3);
    bool encrypt = false;
    std::string mount;
    Config config{"kdfs-test", "Tests options.", {"mount"}};

    Settings() {
        config.add_text("listen", &listen, "address to listen on");
        config.add_list("target", &targets, "directory of a target");
        config.add_number("replicas", &replicas, {1, 4}, "copies of each chunk");
        config.add_bytes("chunk-size", &chunk, {64 * KiB, 64 * MiB}, "bytes of a chunk");
        config.add_duration("lease", &lease, "time a node lives without heartbeat");
        config.add_flag("encrypt", &encrypt, "encrypt data");
        config.add_text("mount", &mount, "where to mount");
    }
    Result<std::optional<std::string>> parse(std::vector<const char*> arguments) {
        arguments.insert(arguments.begin(), "kdfs-test");
        return config.parse(static_cast<int>(arguments.size()), arguments.data());
    }
    // The error of arguments that must fail.
    std::string failure(std::vector<const char*> arguments) {
        auto parsed = parse(std::move(arguments));
        EXPECT_FALSE(parsed.ok());
        return parsed.ok() ? "" : parsed.error().detail;
    }
};

std::string write_file(const std::string& text) {
    std::string path = testing::TempDir() + "kdfs_base_config_test.conf";
    std::ofstream(path) << text;
    return path;
}

TEST(ConfigTest, DefaultsStayWithoutArguments) {
    Settings s;
    auto parsed = s.parse({});
    ASSERT_TRUE(parsed.ok());
    EXPECT_FALSE(parsed->has_value());
    EXPECT_EQ(s.replicas, 2U);
    EXPECT_EQ(s.chunk, 1 * MiB);
}

TEST(ConfigTest, APlaceholderOfTheParserIsOnlyABadOption) {
    Settings s;
    EXPECT_NE(s.failure({"--%canonical_option%=1"}).find("an option is not known"),
              std::string::npos);
    std::string path = write_file("%original_token% = %canonical_option%\n");
    EXPECT_NE(s.failure({"--config", path.c_str()}).find(path), std::string::npos);
}

TEST(ConfigTest, TakesEveryKindOfValue) {
    Settings s;
    auto parsed = s.parse({"--listen",
                           "unix:/run/x",
                           "--target",
                           "/a",
                           "--target=/b",
                           "--replicas=3",
                           "--chunk-size",
                           "256KiB",
                           "--lease",
                           "1500ms",
                           "--encrypt",
                           "/mnt/x"});
    ASSERT_TRUE(parsed.ok()) << parsed.error().detail;
    EXPECT_EQ(s.listen, "unix:/run/x");
    EXPECT_EQ(s.targets, (std::vector<std::string>{"/a", "/b"}));
    EXPECT_EQ(s.replicas, 3U);
    EXPECT_EQ(s.chunk, 256 * KiB);
    EXPECT_EQ(s.lease, std::chrono::milliseconds(1500));
    EXPECT_TRUE(s.encrypt);
    EXPECT_EQ(s.mount, "/mnt/x");
}

TEST(ConfigTest, CommandLineWinsOverFile) {
    std::string path =
        write_file("# comment\nreplicas=4\nlease = 2s\ntarget=/a\ntarget=/b\nencrypt=yes\n");
    Settings s;
    auto parsed = s.parse({"--config", path.c_str(), "--replicas", "1", "--target", "/c"});
    ASSERT_TRUE(parsed.ok()) << parsed.error().detail;
    EXPECT_EQ(s.replicas, 1U);
    EXPECT_EQ(s.lease, std::chrono::seconds(2));
    EXPECT_EQ(s.targets, (std::vector<std::string>{"/c"}));
    EXPECT_TRUE(s.encrypt);
}

TEST(ConfigTest, PrintedConfigIsAFileThatGivesTheSame) {
    Settings first;
    auto printed =
        first.parse({"--replicas", "3", "--lease", "250ms", "--target", "/a", "--print-config"});
    ASSERT_TRUE(printed.ok() && printed->has_value());
    std::string path = write_file(**printed);

    Settings second;
    auto parsed = second.parse({"--config", path.c_str()});
    ASSERT_TRUE(parsed.ok()) << parsed.error().detail;
    EXPECT_EQ(second.replicas, 3U);
    EXPECT_EQ(second.lease, std::chrono::milliseconds(250));
    EXPECT_EQ(second.targets, (std::vector<std::string>{"/a"}));
}

TEST(ConfigTest, ErrorsNameTheOption) {
    EXPECT_NE(Settings().failure({"--replicas", "0"}).find("--replicas"), std::string::npos);
    EXPECT_NE(Settings().failure({"--replicas", "x"}).find("1 to 4"), std::string::npos);
    EXPECT_NE(Settings().failure({"--replicas", "-1"}).find("--replicas"), std::string::npos);
    EXPECT_NE(Settings().failure({"--chunk-size", "3XB"}).find("--chunk-size"), std::string::npos);
    EXPECT_NE(Settings().failure({"--lease", "5"}).find("--lease"), std::string::npos);
    EXPECT_NE(Settings().failure({"--nonsense", "5"}).find("nonsense"), std::string::npos);
    EXPECT_NE(Settings().failure({"--encrypt=perhaps"}).find("--encrypt"), std::string::npos);
    EXPECT_NE(Settings().failure({"--listen", "a", "--listen", "b"}).find("more than once"),
              std::string::npos);
    EXPECT_NE(Settings().failure({"/mnt", "too-much"}).find("--help"), std::string::npos);
    EXPECT_NE(Settings().failure({"--config", "/nonexistent/x"}).find("/nonexistent/x"),
              std::string::npos);
    std::string path = write_file("replica=4\n");
    EXPECT_NE(Settings().failure({"--config", path.c_str()}).find("replica"), std::string::npos);
}

TEST(ConfigTest, AFileThatCannotBeReadOrNeverEndsIsRefused) {
    Settings s;
    EXPECT_EQ(s.failure({"--config=/proc/self/fd"}),
              "configuration file /proc/self/fd cannot be read; is it a directory?");
    EXPECT_EQ(s.failure({"--config=/dev/zero"}),
              "configuration file /dev/zero has more than 1048576 bytes");
    EXPECT_EQ(s.failure({"--config=/nowhere/at.all"}),
              "configuration file /nowhere/at.all cannot be opened");
}

TEST(ConfigTest, RequiredOptionMustBeThere) {
    Settings s;
    s.config.require("mount");
    EXPECT_NE(s.failure({}).find("--mount is missing"), std::string::npos);
    Settings given;
    given.config.require("mount");
    EXPECT_TRUE(given.parse({"--mount", "/x"}).ok());
}

TEST(ConfigTest, HelpNamesOptionsDefaultsAndUnits) {
    Settings s;
    auto text = s.parse({"--help"});
    ASSERT_TRUE(text.ok() && text->has_value());
    EXPECT_NE((*text)->find("--chunk-size VALUE"), std::string::npos);
    EXPECT_NE((*text)->find("(1MiB)"), std::string::npos);
    EXPECT_NE((*text)->find("(3s)"), std::string::npos);
    auto version = Settings().parse({"--version"});
    ASSERT_TRUE(version.ok() && version->has_value());
    EXPECT_EQ((*version)->rfind("kdfs-test ", 0), 0U);
}

TEST(ConfigTest, UnitsRoundTripAndOverflowIsRefused) {
    EXPECT_EQ(*parse_bytes("2GiB"), 2 * GiB);
    EXPECT_EQ(format_bytes(64 * KiB), "64KiB");
    EXPECT_EQ(format_bytes(4097), "4097");
    EXPECT_EQ(format_bytes(0), "0");
    EXPECT_FALSE(parse_bytes("99999999999GiB").ok());
    EXPECT_FALSE(parse_bytes("").ok());
    EXPECT_EQ(*parse_duration("2min"), std::chrono::minutes(2));
    EXPECT_EQ(format_duration(std::chrono::milliseconds(250)), "250ms");
    EXPECT_FALSE(parse_duration("9999999999999min").ok());
}

}  // namespace
}  // namespace kdfs
