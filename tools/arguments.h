#pragma once

#include "kdfs/base/result.h"

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace kdfs::tools {

// One option of a subcommand, as its help and its man page show it.
struct OptionSpec {
    // Without the dashes.
    std::string name;
    // What stands for the value in the help; empty for an option without one.
    std::string value;
    std::string help;
};

// What a subcommand takes and says of itself. Help, man page and parser are made from it, so they
// cannot disagree.
struct CommandSpec {
    std::string program = "kdfs";
    // Of the subcommand; empty for a program that has none.
    std::string name;
    std::string summary;
    // The words after the options, such as "FILE" or "get|set PATH"; for the usage line only.
    std::string operands;
    size_t operands_min = 0;
    size_t operands_max = 0;
    std::string details;
    std::vector<OptionSpec> options;
    std::vector<std::string> examples;

    // What a user types to run it: "kdfs up".
    std::string title() const { return name.empty() ? program : program + " " + name; }
};

// The command line of one subcommand, checked against its spec: unknown options, values that are
// missing or given twice, too few or too many operands are kInvalidArgument, each with a sentence
// that says what is allowed. `--name value` and `--name=value` mean the same; `--` ends options.
class Arguments {
public:
    static Result<Arguments> parse(const CommandSpec& spec, std::span<const std::string> words);

    bool has(const std::string& option) const { return values_.count(option) != 0; }
    // The value, or `otherwise` if the option was not given.
    std::string get(const std::string& option, const std::string& otherwise = {}) const;
    // kInvalidArgument, naming the option and the range, if the value is no whole number within it.
    struct Range {
        uint64_t min = 0;
        uint64_t max = UINT64_MAX;
    };
    Result<uint64_t> number(const std::string& option, uint64_t otherwise, Range range) const;
    const std::vector<std::string>& operands() const { return operands_; }
    // True for --help and -h, whatever else is wrong with the line.
    bool help() const { return help_; }

private:
    std::map<std::string, std::string> values_;
    std::vector<std::string> operands_;
    bool help_ = false;
};

// "64K", "1M", "1MiB", "4096": a count of bytes. kInvalidArgument names `what`.
Result<uint64_t> parse_bytes(const std::string& text, const std::string& what);
// A whole number in decimal within the range. kInvalidArgument names `what` and the range.
Result<uint64_t> parse_number(const std::string& text,
                              const std::string& what,
                              Arguments::Range range);

// `text` in lines of at most kTextColumns, all but the first begun with `indent` spaces.
inline constexpr size_t kTextColumns = 90;
std::string wrapped(const std::string& text, size_t indent);
// The usage line and everything else for `kdfs NAME --help`.
std::string help_text(const CommandSpec& spec);
// The candidate nearest to `word` by edit distance, or nothing if none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace kdfs::tools
