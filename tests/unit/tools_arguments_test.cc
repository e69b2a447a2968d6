#include "tools/arguments.h"
#include "tools/command.h"

#include <gtest/gtest.h>

#include <sstream>

namespace kdfs::tools {
namespace {

CommandSpec spec() {
    CommandSpec out;
    out.name = "paint";
    out.summary = "Paint a wall";
    out.operands = "WALL";
    out.operands_min = 1;
    out.operands_max = 1;
    out.options = {{"colour", "NAME", "which"}, {"dry", "", "only say it"}};
    return out;
}

Result<Arguments> parse(std::vector<std::string> words) { return Arguments::parse(spec(), words); }

TEST(ArgumentsTest, ValueFollowsAsNextWordOrAfterEquals) {
    for (const auto& words : {std::vector<std::string>{"--colour", "red", "north"},
                              std::vector<std::string>{"north", "--colour=red"}}) {
        Result<Arguments> arguments = parse(words);

        ASSERT_TRUE(arguments.ok());
        EXPECT_EQ(arguments->get("colour"), "red");
        EXPECT_EQ(arguments->operands(), std::vector<std::string>{"north"});
        EXPECT_FALSE(arguments->has("dry"));
    }
}

TEST(ArgumentsTest, EveryMistakeIsNamed) {
    const std::pair<std::vector<std::string>, std::string> cases[] = {
        {{"--color", "red", "north"}, "did you mean --colour"},
        {{"--colour"}, "--colour lacks its value NAME"},
        {{"--dry=yes", "north"}, "--dry takes no value"},
        {{"--dry", "--dry", "north"}, "--dry is given twice"},
        {{"-x", "north"}, "no option -x"},
        {{}, "lacks WALL"},
        {{"north", "south"}, "'south' is more than kdfs paint takes"},
    };
    for (const auto& [words, sentence] : cases) {
        Result<Arguments> arguments = parse(words);

        ASSERT_FALSE(arguments.ok()) << sentence;
        EXPECT_EQ(arguments.error().code, Errc::kInvalidArgument);
        EXPECT_NE(arguments.error().detail.find(sentence), std::string::npos)
            << arguments.error().detail;
    }
}

TEST(ArgumentsTest, HelpWinsOverMistakesAndDashesEndOptions) {
    EXPECT_TRUE(parse({"--nonsense", "--help"})->help());
    Result<Arguments> arguments = parse({"--", "--help"});
    ASSERT_TRUE(arguments.ok());
    EXPECT_EQ(arguments->operands(), std::vector<std::string>{"--help"});
}

TEST(ArgumentsTest, NumbersAreCheckedAgainstTheirRange) {
    EXPECT_EQ(*parse_number("7", "--n", {1, 9}), 7U);
    for (const char* text : {"0", "10", "", "x", "7x", "-1", "99999999999999999999"}) {
        Result<uint64_t> number = parse_number(text, "--n", {1, 9});
        ASSERT_FALSE(number.ok()) << text;
        EXPECT_NE(number.error().detail.find("from 1 to 9"), std::string::npos);
    }
}

TEST(ArgumentsTest, BytesTakeUnits) {
    EXPECT_EQ(*parse_bytes("65536", "x"), 65536U);
    EXPECT_EQ(*parse_bytes("64K", "x"), 65536U);
    EXPECT_EQ(*parse_bytes("1MiB", "x"), 1U << 20);
    EXPECT_EQ(*parse_bytes("2GB", "x"), 2ULL << 30);
    for (const char* text : {"", "K", "1Q", "1.5M", "-1", "99999999T"}) {
        EXPECT_FALSE(parse_bytes(text, "x").ok()) << text;
    }
}

TEST(ArgumentsTest, NearestIsOnlyOfferedWhenNear) {
    EXPECT_EQ(nearest("statsu", {"status", "up", "down"}), "status");
    EXPECT_EQ(nearest("frobnicate", {"status", "up", "down"}), "");
}

struct Ran {
    int code = 0;
    std::string out;
    std::string err;
};

Ran run(const std::vector<std::string>& words) {
    std::ostringstream out;
    std::ostringstream err;
    Console console{out, err, false};
    int code = run_kdfs(words, console);
    return {code, out.str(), err.str()};
}

TEST(CommandTest, EverySubcommandHasHelpThatNamesItsOptions) {
    for (const Command& command : all_commands()) {
        Ran ran = run({command.spec.name, "--help"});

        EXPECT_EQ(ran.code, kExitOk);
        EXPECT_NE(ran.out.find("usage: kdfs " + command.spec.name), std::string::npos);
        for (const OptionSpec& option : command.spec.options) {
            EXPECT_NE(ran.out.find("--" + option.name), std::string::npos);
        }
        EXPECT_EQ(run({"help", command.spec.name}).out, ran.out);
    }
}

TEST(CommandTest, AnUnknownCommandSuggestsTheNearest) {
    Ran ran = run({"staus"});

    EXPECT_EQ(ran.code, kExitUsage);
    EXPECT_NE(ran.err.find("did you mean 'kdfs status'?"), std::string::npos);
    EXPECT_EQ(ran.out, "");
}

TEST(CommandTest, WrongOptionsDoNothingAndExitWithTheUsageCode) {
    const std::pair<std::vector<std::string>, std::string> cases[] = {
        {{"up", "--dir", "/nonexistent/x", "--mount", "/m", "--nodes", "0"}, "--nodes is '0'"},
        {{"up", "--dir", "/nonexistent/x", "--mount", "/m", "--nodes", "65"}, "from 1 to 64"},
        {{"up", "--dir", "/nonexistent/x", "--mount", "/m", "--nodes", "1"}, "--replicas 2 needs"},
        {{"up", "--dir", "/nonexistent/x", "--mount", "/m", "--replicas", "9"}, "from 1 to 4"},
        {{"up", "--dir", "/nonexistent/x"}, "lacks --mount PATH"},
        {{"up", "--dir", "/a/b", "--mount", "/a"}, "lie within each other"},
        {{"down", "now"}, "'now' is more"},
        {{"status", "--mds", "1.2.3.4:5"}, "go together"},
        {{"policy", "put", "/x"}, "knows get and set"},
        {{"policy", "set", "/x"}, "lacks a setting"},
        {{"policy", "set", "/x", "--replicas", "0"}, "--replicas is '0'"},
        {{"policy", "set", "/x", "--width", "0"}, "--width is '0'"},
        {{"policy", "set", "/x", "--chunk-size", "0"}, "power of two from 64K to 64M"},
        {{"policy", "set", "/x", "--chunk-size", "100000"}, "power of two from 64K to 64M"},
        {{"policy", "set", "/x", "--placement", "random"}, "striped or local"},
    };
    for (const auto& [words, sentence] : cases) {
        Ran ran = run(words);

        EXPECT_EQ(ran.code, kExitUsage) << sentence << "\n" << ran.err;
        EXPECT_NE(ran.err.find(sentence), std::string::npos) << ran.err;
    }
}

}  // namespace
}  // namespace kdfs::tools
