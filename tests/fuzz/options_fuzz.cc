// What users write: command lines, configuration files, options of a mount.
//   u8 which: 0 a daemon's command line, 1 its configuration file, 2 kdfs-fuse, 3 mount.kdfs,
//             4 a command of kdfs, 5 sizes and times; rest: words, one a line, or the file

#include "client/mount_options.h"
#include "kdfs/base/config.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/scratch_file.h"
#include "tools/arguments.h"

#include <sstream>
#include <vector>

namespace kdfs::fuzz {
namespace {

std::vector<std::string> words_of(std::string_view text) {
    std::vector<std::string> out;
    std::istringstream lines{std::string(text)};
    for (std::string line; std::getline(lines, line);) {
        out.push_back(line);
    }
    return out;
}

struct Values {
    std::string text = "default";
    std::vector<std::string> list;
    bool flag = false;
    uint64_t number = 5;
    uint64_t bytes = MiB;
    Duration time = std::chrono::seconds(2);
};

void declare(Config& config, Values& values) {
    config.add_text("text", &values.text, "a text");
    config.add_list("list", &values.list, "a list");
    config.add_flag("flag", &values.flag, "a flag");
    config.add_number("number", &values.number, {1, 1000}, "a number");
    config.add_bytes("bytes", &values.bytes, {4 * KiB, GiB}, "a size");
    config.add_duration("time", &values.time, "a time");
}

void parse_config(const std::vector<std::string>& words) {
    Values values;
    Config config("program", "Does something.", {"text"});
    declare(config, values);
    std::vector<const char*> arguments{"program"};
    for (const std::string& word : words) {
        // Which file that is would be up to the input.
        if (!word.starts_with("--conf") || word.starts_with("--config=/proc/self/fd/")) {
            arguments.push_back(word.c_str());
        }
    }
    auto parsed = config.parse(static_cast<int>(arguments.size()), arguments.data());
    if (parsed.ok()) {
        require(values.number >= 1 && values.number <= 1000, "a number is within its bounds");
        require(values.bytes >= 4 * KiB && values.bytes <= GiB, "a size is within its bounds");
        require(values.time.count() >= 0, "a time is not negative");
    }
}

void parse_sizes(const std::string& text) {
    auto bytes = parse_bytes(text);
    if (bytes.ok()) {
        auto again = parse_bytes(format_bytes(*bytes));
        require(again.ok() && *again == *bytes, "a size that is shown can be given");
    }
    auto time = parse_duration(text);
    if (time.ok()) {
        auto again = parse_duration(format_duration(*time));
        require(again.ok() && *again == *time, "a time that is shown can be given");
    }
    (void)tools::parse_bytes(text, "--size");
    (void)tools::parse_number(text, "--count", {1, 100});
    (void)tools::wrapped(text, 4);
}

void parse_command(const std::vector<std::string>& words) {
    tools::CommandSpec spec;
    spec.name = "up";
    spec.operands_max = 2;
    spec.options = {{"dir", "STATE", "where"}, {"nodes", "N", "how many"}, {"force", "", "do it"}};
    auto arguments = tools::Arguments::parse(spec, words);
    if (arguments.ok()) {
        require(arguments->operands().size() <= 2 || arguments->help(), "operands are counted");
        (void)arguments->number("nodes", 3, {1, 64});
    }
    std::vector<std::string> candidates{"status", "down", "doctor"};
    (void)tools::nearest(words.empty() ? "" : words[0], candidates);
}

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    uint8_t which = input.u8() % 6;
    std::string text(input.rest());
    std::vector<std::string> words = fuzz::words_of(text);
    switch (which) {
        case 0:
            fuzz::parse_config(words);
            break;
        case 1: {
            fuzz::ScratchFile file(text);
            fuzz::parse_config({"--config=" + file.path()});
            break;
        }
        case 2:
            (void)client::parse_mount_options(words);
            break;
        case 3: {
            auto translated = client::from_mount_helper(words);
            if (translated.ok()) {
                (void)client::parse_mount_options(*translated);
            }
            break;
        }
        case 4:
            fuzz::parse_command(words);
            break;
        default:
            fuzz::parse_sizes(text);
    }
    return 0;
}
