#include "tools/arguments.h"

#include <algorithm>
#include <charconv>
#include <sstream>

namespace kdfs::tools {

namespace {

const OptionSpec* find_option(const CommandSpec& spec, const std::string& name) {
    for (const OptionSpec& option : spec.options) {
        if (option.name == name) {
            return &option;
        }
    }
    return nullptr;
}

Error usage_error(const CommandSpec& spec, const std::string& what) {
    return Error(Errc::kInvalidArgument, what + "; see " + spec.title() + " --help");
}

Error unknown_option(const CommandSpec& spec, const std::string& name) {
    std::vector<std::string> names;
    for (const OptionSpec& option : spec.options) {
        names.push_back(option.name);
    }
    std::string near = nearest(name, names);
    std::string hint = near.empty() ? "" : ", did you mean --" + near + "?";
    return usage_error(spec, spec.title() + " has no option --" + name + hint);
}

size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a.size(); ++i) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row.back();
}

// Splits "--name=value"; false if there is no '='.
bool split_value(std::string& name, std::string& value) {
    size_t at = name.find('=');
    if (at == std::string::npos) {
        return false;
    }
    value = name.substr(at + 1);
    name.resize(at);
    return true;
}

bool asks_for_help(std::span<const std::string> words) {
    auto options_end = std::ranges::find(words, "--");
    return std::any_of(words.begin(), options_end, [](const std::string& word) {
        return word == "--help" || word == "-h";
    });
}

std::string usage_line(const CommandSpec& spec) {
    std::string line = "usage: " + spec.title();
    if (!spec.options.empty()) {
        line += " [options]";
    }
    return spec.operands.empty() ? line : line + " " + spec.operands;
}

}  // namespace

Result<Arguments> Arguments::parse(const CommandSpec& spec, std::span<const std::string> words) {
    Arguments out;
    if (asks_for_help(words)) {
        out.help_ = true;
        return out;
    }
    bool options_end = false;
    for (size_t i = 0; i < words.size(); ++i) {
        const std::string& word = words[i];
        if (options_end || word.size() < 2 || word[0] != '-') {
            out.operands_.push_back(word);
            continue;
        }
        if (word == "--") {
            options_end = true;
            continue;
        }
        if (word[1] != '-') {
            return usage_error(spec, spec.title() + " has no option " + word);
        }
        std::string name = word.substr(2);
        std::string value;
        bool has_value = split_value(name, value);
        const OptionSpec* option = find_option(spec, name);
        if (option == nullptr) {
            return unknown_option(spec, name);
        }
        if (option->value.empty() && has_value) {
            return usage_error(spec, "--" + name + " takes no value");
        }
        if (!option->value.empty() && !has_value) {
            if (i + 1 == words.size()) {
                return usage_error(spec, "--" + name + " lacks its value " + option->value);
            }
            value = words[++i];
        }
        if (!out.values_.emplace(name, value).second) {
            return usage_error(spec, "--" + name + " is given twice");
        }
    }
    if (out.operands_.size() < spec.operands_min) {
        return usage_error(spec, spec.title() + " lacks " + spec.operands);
    }
    if (out.operands_.size() > spec.operands_max) {
        return usage_error(
            spec,
            "'" + out.operands_[spec.operands_max] + "' is more than " + spec.title() + " takes");
    }
    return out;
}

std::string Arguments::get(const std::string& option, const std::string& otherwise) const {
    auto found = values_.find(option);
    return found == values_.end() ? otherwise : found->second;
}

Result<uint64_t> Arguments::number(const std::string& option,
                                   uint64_t otherwise,
                                   Range range) const {
    if (!has(option)) {
        return otherwise;
    }
    return parse_number(get(option), "--" + option, range);
}

Result<uint64_t> parse_number(const std::string& text,
                              const std::string& what,
                              Arguments::Range range) {
    uint64_t value = 0;
    const char* end = text.data() + text.size();
    auto [stop, code] = std::from_chars(text.data(), end, value);
    if (code == std::errc() && stop == end && value >= range.min && value <= range.max) {
        return value;
    }
    std::string allowed = "a whole number";
    if (range.max != UINT64_MAX) {
        allowed += " from " + std::to_string(range.min) + " to " + std::to_string(range.max);
    } else if (range.min != 0) {
        allowed += " of at least " + std::to_string(range.min);
    }
    return Error(Errc::kInvalidArgument, what + " is '" + text + "' but must be " + allowed);
}

Result<uint64_t> parse_bytes(const std::string& text, const std::string& what) {
    uint64_t value = 0;
    const char* end = text.data() + text.size();
    auto [stop, code] = std::from_chars(text.data(), end, value);
    std::string unit(stop, end);
    for (const char* suffix : {"iB", "B"}) {
        std::string tail = suffix;
        if (unit.size() > tail.size() && unit.ends_with(tail)) {
            unit.resize(unit.size() - tail.size());
        }
    }
    static const std::map<std::string, int> kShifts =
        {{"", 0}, {"B", 0}, {"K", 10}, {"k", 10}, {"M", 20}, {"G", 30}, {"T", 40}};
    auto shift = kShifts.find(unit);
    if (code != std::errc() || shift == kShifts.end() || value > (UINT64_MAX >> shift->second)) {
        return Error(
            Errc::kInvalidArgument,
            what + " is '" + text + "' but must be a count of bytes such as 65536, 64K, 1M or 2G");
    }
    return value << shift->second;
}

std::string wrapped(const std::string& text, size_t indent) {
    std::string out;
    size_t column = indent;
    std::istringstream in(text);
    for (std::string word; in >> word;) {
        bool first = out.empty();
        if (!first && column + 1 + word.size() > kTextColumns) {
            out += "\n" + std::string(indent, ' ') + word;
            column = indent + word.size();
        } else {
            out += (first ? "" : " ") + word;
            column += word.size() + (first ? 0 : 1);
        }
    }
    return out;
}

std::string help_text(const CommandSpec& spec) {
    std::ostringstream out;
    out << usage_line(spec) << "\n\n" << spec.summary << ".\n";
    if (!spec.details.empty()) {
        out << "\n" << wrapped(spec.details, 0) << "\n";
    }
    if (!spec.options.empty()) {
        size_t width = 0;
        for (const OptionSpec& option : spec.options) {
            width = std::max(width, option.name.size() + option.value.size());
        }
        out << "\noptions:\n";
        for (const OptionSpec& option : spec.options) {
            std::string head =
                "--" + option.name + (option.value.empty() ? "" : " ") + option.value;
            head.resize(width + 5, ' ');
            out << "  " << head << wrapped(option.help, head.size() + 2) << "\n";
        }
    }
    if (!spec.examples.empty()) {
        out << "\nexamples:\n";
        for (const std::string& example : spec.examples) {
            out << "  " << example << "\n";
        }
    }
    return out.str();
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
    std::string best;
    size_t best_distance = std::max<size_t>(1, word.size() / 2) + 1;
    for (const std::string& candidate : candidates) {
        size_t distance = edit_distance(word, candidate);
        if (distance < best_distance) {
            best = candidate;
            best_distance = distance;
        }
    }
    return best;
}

}  // namespace kdfs::tools
