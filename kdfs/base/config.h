#pragma once

#include "kdfs/base/result.h"
#include "kdfs/base/types.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kdfs {

// The options of a program: each is a variable that holds its default before parse() and its value
// after. An option comes from the command line (--name VALUE) or from the file named by --config
// (name=value lines, # comments); the command line wins. Added to each program's own are --help,
// --version, --config and --print-config, which prints all values in the form of such a file.
// The variables must outlive parse().
class Config {
public:
    // `summary` is one sentence on what the program does; `positional` the names of arguments
    // without dashes in their order, which are options of this config too.
    Config(std::string program, std::string summary, std::vector<std::string> positional = {});
    ~Config();
    Config(const Config&) = delete;
    Config& operator=(const Config&) = delete;

    void add_text(const std::string& name, std::string* value, const std::string& help);
    // May be given several times; values from the command line replace those from the file.
    void add_list(const std::string& name,
                  std::vector<std::string>* values,
                  const std::string& help);
    // Given as --name or name=true; also takes yes, no, 1, 0, on, off.
    void add_flag(const std::string& name, bool* value, const std::string& help);
    // A whole number within [first, last].
    struct Bounds {
        uint64_t first = 0;
        uint64_t last = UINT64_MAX;
    };
    void add_number(const std::string& name,
                    uint64_t* value,
                    Bounds bounds,
                    const std::string& help);
    // A number of bytes within the bounds: 4096, 64KiB, 1MiB, 2GiB.
    void add_bytes(const std::string& name,
                   uint64_t* value,
                   Bounds bounds,
                   const std::string& help);
    // A time of at least 0: 250ms, 3s, 2min. A number without unit is refused.
    void add_duration(const std::string& name, Duration* value, const std::string& help);
    // parse() fails unless this option has a value that is not empty.
    void require(const std::string& name);

    // Reads the arguments. Text: what to print before leaving with success (--help, --version,
    // --print-config); nothing: go on. kInvalidArgument names the option and what it takes.
    Result<std::optional<std::string>> parse(int argc, const char* const* argv);
    std::string help() const;

private:
    struct Option;
    struct Given;

    Option& add(const std::string& name, const std::string& help);
    Option* find(const std::string& name);
    Result<Given> read_arguments(int argc, const char* const* argv) const;
    Result<Given> read_file(const std::string& path) const;
    Status apply(const Given& given);
    std::string print() const;

    std::string program_;
    std::string summary_;
    std::vector<std::string> positional_;
    std::vector<std::unique_ptr<Option>> options_;
};

// "64KiB", "1MiB", "4096"; kInvalidArgument.
Result<uint64_t> parse_bytes(const std::string& text);
std::string format_bytes(uint64_t bytes);
// "250ms", "3s", "2min"; kInvalidArgument.
Result<Duration> parse_duration(const std::string& text);
std::string format_duration(Duration duration);

}  // namespace kdfs
