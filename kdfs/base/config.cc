#include "kdfs/base/config.h"

#include <boost/program_options.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string_view>
#include <utility>

namespace kdfs {
namespace {

namespace options = boost::program_options;

struct Unit {
    std::string_view name;
    uint64_t factor;
};

constexpr std::array<Unit, 4> kByteUnits{{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"", 1}}};
constexpr std::array<Unit, 5> kTimeUnits{
    {{"min", 60000000000}, {"s", 1000000000}, {"ms", 1000000}, {"us", 1000}, {"ns", 1}}};

// Of a configuration file.
constexpr size_t kFileBytesMax = MiB;

Result<std::string> text_of(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) {
        return Error(Errc::kNotFound, "configuration file " + path + " cannot be opened");
    }
    std::string text(kFileBytesMax + 1, '\0');
    stream.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (stream.bad()) {
        return Error(Errc::kInvalidArgument,
                     "configuration file " + path + " cannot be read; is it a directory?");
    }
    text.resize(static_cast<size_t>(stream.gcount()));
    if (text.size() > kFileBytesMax) {
        return Error(Errc::kTooBig,
                     "configuration file " + path + " has more than " +
                         std::to_string(kFileBytesMax) + " bytes");
    }
    return text;
}

bool parse_number(std::string_view text, uint64_t& out) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && end == text.data() + text.size();
}

// A number and one of `units`; false if it is none, or too large.
template <size_t kCount>
bool parse_with_unit(std::string_view text, const std::array<Unit, kCount>& units, uint64_t& out) {
    size_t digits = text.find_first_not_of("0123456789");
    std::string_view unit = digits == text.npos ? "" : text.substr(digits);
    uint64_t number = 0;
    if (!parse_number(text.substr(0, digits), number)) {
        return false;
    }
    for (const Unit& each : units) {
        if (each.name == unit) {
            return !__builtin_mul_overflow(number, each.factor, &out);
        }
    }
    return false;
}

template <size_t kCount>
std::string format_with_unit(uint64_t value, const std::array<Unit, kCount>& units) {
    for (const Unit& each : units) {
        if (value >= each.factor && value % each.factor == 0) {
            return std::to_string(value / each.factor) + std::string(each.name);
        }
    }
    return std::to_string(value) + std::string(units.back().name);
}

Error bad_value(const std::string& text, const std::string& wanted) {
    return {Errc::kInvalidArgument, "\"" + text + "\" is not " + wanted};
}

// Boost puts what the user wrote into a text with placeholders such as %option%, until none is
// left: for ever, if the user wrote one.
std::string cause_of(const options::error& failed, std::string_view given) {
    if (given.find('%') != std::string_view::npos) {
        return "an option is not known, or its value is missing or not wanted";
    }
    return failed.what();
}

std::string see_help(const std::string& program) { return ": see " + program + " --help"; }

Result<bool> parse_flag(const std::string& text) {
    for (std::string_view yes : {"true", "yes", "on", "1", ""}) {
        if (text == yes) {
            return true;
        }
    }
    for (std::string_view no : {"false", "no", "off", "0"}) {
        if (text == no) {
            return false;
        }
    }
    return bad_value(text, "yes or no");
}

}  // namespace

Result<uint64_t> parse_bytes(const std::string& text) {
    uint64_t out = 0;
    if (!parse_with_unit(text, kByteUnits, out)) {
        return bad_value(text, "a number of bytes such as 4096, 64KiB or 1MiB");
    }
    return out;
}

std::string format_bytes(uint64_t bytes) { return format_with_unit(bytes, kByteUnits); }

Result<Duration> parse_duration(const std::string& text) {
    uint64_t out = 0;
    if (!parse_with_unit(text, kTimeUnits, out) || out > INT64_MAX) {
        return bad_value(text, "a time such as 250ms, 3s or 2min");
    }
    return Duration(static_cast<int64_t>(out));
}

std::string format_duration(Duration duration) {
    return format_with_unit(static_cast<uint64_t>(duration.count()), kTimeUnits);
}

struct Config::Option {
    std::string name;
    std::string help;
    bool is_flag = false;
    bool is_list = false;
    bool required = false;
    // Takes one more value.
    std::function<Status(const std::string&)> set;
    // Forgets the values so far: lists.
    std::function<void()> clear = [] {};
    std::function<std::vector<std::string>()> values;
};

// Values by option name, in the order given.
struct Config::Given {
    std::map<std::string, std::vector<std::string>> values;

    static Given from(const options::parsed_options& parsed) {
        Given out;
        for (const auto& each : parsed.options) {
            auto& values = out.values[each.string_key];
            if (each.value.empty()) {
                values.emplace_back();
            }
            values.insert(values.end(), each.value.begin(), each.value.end());
        }
        return out;
    }
};

Config::Config(std::string program, std::string summary, std::vector<std::string> positional)
    : program_(std::move(program)),
      summary_(std::move(summary)),
      positional_(std::move(positional)) {}

Config::~Config() = default;

Config::Option& Config::add(const std::string& name, const std::string& help) {
    KDFS_CHECK(find(name) == nullptr);
    options_.push_back(std::make_unique<Option>());
    options_.back()->name = name;
    options_.back()->help = help;
    return *options_.back();
}

Config::Option* Config::find(const std::string& name) {
    for (const auto& option : options_) {
        if (option->name == name) {
            return option.get();
        }
    }
    return nullptr;
}

void Config::add_text(const std::string& name, std::string* value, const std::string& help) {
    Option& option = add(name, help);
    option.set = [value](const std::string& text) -> Status {
        *value = text;
        return {};
    };
    option.values = [value] { return std::vector<std::string>{*value}; };
}

void Config::add_list(const std::string& name,
                      std::vector<std::string>* values,
                      const std::string& help) {
    Option& option = add(name, help);
    option.is_list = true;
    option.set = [values](const std::string& text) -> Status {
        values->push_back(text);
        return {};
    };
    option.clear = [values] { values->clear(); };
    option.values = [values] { return *values; };
}

void Config::add_flag(const std::string& name, bool* value, const std::string& help) {
    Option& option = add(name, help);
    option.is_flag = true;
    option.set = [value](const std::string& text) -> Status {
        KDFS_TRY_ASSIGN(*value, parse_flag(text));
        return {};
    };
    option.values = [value] { return std::vector<std::string>{*value ? "true" : "false"}; };
}

void Config::add_number(const std::string& name,
                        uint64_t* value,
                        Bounds bounds,
                        const std::string& help) {
    Option& option = add(name, help);
    option.set = [value, bounds](const std::string& text) -> Status {
        uint64_t number = 0;
        if (!parse_number(text, number) || number < bounds.first || number > bounds.last) {
            return bad_value(text,
                             "a number from " + std::to_string(bounds.first) + " to " +
                                 std::to_string(bounds.last));
        }
        *value = number;
        return {};
    };
    option.values = [value] { return std::vector<std::string>{std::to_string(*value)}; };
}

void Config::add_bytes(const std::string& name,
                       uint64_t* value,
                       Bounds bounds,
                       const std::string& help) {
    Option& option = add(name, help);
    option.set = [value, bounds](const std::string& text) -> Status {
        KDFS_TRY_ASSIGN(uint64_t bytes, parse_bytes(text));
        if (bytes < bounds.first || bytes > bounds.last) {
            return bad_value(
                text,
                "from " + format_bytes(bounds.first) + " to " + format_bytes(bounds.last));
        }
        *value = bytes;
        return {};
    };
    option.values = [value] { return std::vector<std::string>{format_bytes(*value)}; };
}

void Config::add_duration(const std::string& name, Duration* value, const std::string& help) {
    Option& option = add(name, help);
    option.set = [value](const std::string& text) -> Status {
        KDFS_TRY_ASSIGN(*value, parse_duration(text));
        return {};
    };
    option.values = [value] { return std::vector<std::string>{format_duration(*value)}; };
}

void Config::require(const std::string& name) {
    Option* option = find(name);
    KDFS_CHECK(option != nullptr);
    option->required = true;
}

Result<Config::Given> Config::read_arguments(int argc, const char* const* argv) const {
    options::options_description description;
    auto adder = description.add_options();
    adder("help,h", "")("version", "")("print-config", "");
    adder("config", options::value<std::string>(), "");
    for (const auto& option : options_) {
        adder(option->name.c_str(), options::value<std::vector<std::string>>(), "");
    }
    // A flag needs no value, and must not take the next argument for one.
    std::vector<std::string> arguments(argv + 1, argv + argc);
    for (std::string& argument : arguments) {
        for (const auto& option : options_) {
            if (option->is_flag && argument == "--" + option->name) {
                argument += "=true";
                break;
            }
        }
    }
    options::positional_options_description positional;
    for (const std::string& name : positional_) {
        positional.add(name.c_str(), 1);
    }
    // Boost reports what it does not understand by exceptions, whose texts name the option.
    try {
        constexpr int kStyle =
            options::command_line_style::unix_style & ~options::command_line_style::allow_guessing;
        auto parsed = options::command_line_parser(arguments)
                          .options(description)
                          .positional(positional)
                          .style(kStyle)
                          .run();
        return Given::from(parsed);
    } catch (const options::error& failed) {
        std::string given;
        for (const std::string& argument : arguments) {
            given += argument;
        }
        return Error(Errc::kInvalidArgument, cause_of(failed, given) + see_help(program_));
    }
}

Result<Config::Given> Config::read_file(const std::string& path) const {
    KDFS_TRY_ASSIGN(std::string text, text_of(path));
    options::options_description description;
    for (const auto& option : options_) {
        description.add_options()(option->name.c_str(),
                                  options::value<std::vector<std::string>>(),
                                  "");
    }
    std::istringstream lines(text);
    try {
        return Given::from(options::parse_config_file(lines, description));
    } catch (const options::error& failed) {
        return Error(Errc::kInvalidArgument,
                     "configuration file " + path + ": " + cause_of(failed, text));
    }
}

Status Config::apply(const Given& given) {
    for (const auto& [name, values] : given.values) {
        Option* option = find(name);
        if (option == nullptr) {
            continue;
        }
        if (values.size() > 1 && !option->is_list) {
            return Error(Errc::kInvalidArgument, "option --" + name + " is given more than once");
        }
        option->clear();
        for (const std::string& value : values) {
            Status set = option->set(value);
            if (!set.ok()) {
                return Error(Errc::kInvalidArgument,
                             "option --" + name + ": " + set.error().detail);
            }
        }
    }
    return {};
}

Result<std::optional<std::string>> Config::parse(int argc, const char* const* argv) {
    std::optional<std::string> out;
    KDFS_TRY_ASSIGN(Given arguments, read_arguments(argc, argv));
    if (arguments.values.contains("help")) {
        out = help();
        return out;
    }
    if (arguments.values.contains("version")) {
        out = program_ + " " KDFS_VERSION "\n";
        return out;
    }
    auto file = arguments.values.find("config");
    if (file != arguments.values.end()) {
        KDFS_TRY_ASSIGN(Given from_file, read_file(file->second.back()));
        KDFS_TRY(apply(from_file));
    }
    KDFS_TRY(apply(arguments));
    if (arguments.values.contains("print-config")) {
        out = print();
        return out;
    }
    for (const auto& option : options_) {
        std::vector<std::string> values = option->values();
        if (option->required && (values.empty() || values.front().empty())) {
            return Error(Errc::kInvalidArgument,
                         "option --" + option->name + " is missing (" + option->help + ")" +
                             see_help(program_));
        }
    }
    return out;
}

std::string Config::print() const {
    std::string out;
    for (const auto& option : options_) {
        for (const std::string& value : option->values()) {
            out += option->name;
            out += '=';
            out += value;
            out += '\n';
        }
    }
    return out;
}

std::string Config::help() const {
    constexpr size_t kColumn = 30;
    std::string out = "Usage: " + program_ + " [options]";
    for (const std::string& name : positional_) {
        out += " [" + name + "]";
    }
    out += "\n" + summary_ + "\n\nOptions (name, meaning, default):\n";
    auto line = [&out](std::string head, const std::string& text) {
        head.resize(head.size() < kColumn ? kColumn : head.size() + 1, ' ');
        out += head + text + "\n";
    };
    for (const auto& option : options_) {
        std::string text = option->help;
        std::vector<std::string> values = option->values();
        if (option->required) {
            text += " (required)";
        } else if (!values.empty() && !values.front().empty() && !option->is_flag) {
            text += " (" + values.front() + ")";
        }
        line("  --" + option->name + (option->is_flag ? "" : " VALUE"), text);
    }
    line("  --config FILE", "read options from FILE, one name=value a line");
    line("  --print-config", "print all options with their values and leave");
    line("  --version", "print the version and leave");
    line("  -h, --help", "print this and leave");
    return out;
}

}  // namespace kdfs
