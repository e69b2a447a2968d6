#include "tools/command.h"

#include <sstream>

namespace kdfs::tools {

namespace {

constexpr const char* kVersion = "0.1.0";

constexpr const char* kIntroduction =
    "kdfs turns the disks of a cluster's nodes into one file system. This is its command for "
    "users and administrators.";

constexpr const char* kFindingTheCluster =
    "Commands that speak to a cluster find it by --dir STATE, by --mds ADDRESS with "
    "--cluster-key FILE, by a path below its mount, by the environment variable KDFS_DIR, or, if "
    "none of these is given, by the mount the current directory lies in or the only kdfs mount of "
    "this machine.";

constexpr const char* kExitCodes =
    "0 done (status: healthy), 1 failed (status: degraded), 2 status: critical, 3 the cluster "
    "does not answer, 64 the command line is wrong.";

std::string overview() {
    std::ostringstream out;
    out << "usage: kdfs COMMAND [options]\n\n" << wrapped(kIntroduction, 0) << "\n\ncommands:\n";
    for (const Command& command : all_commands()) {
        std::string name = command.spec.name;
        name.resize(10, ' ');
        out << "  " << name << command.spec.summary << "\n";
    }
    out << "  help      Show this, or the help of a command\n"
        << "  version   Show the version\n\n"
        << wrapped(kFindingTheCluster, 0) << "\n\nexit codes: " << wrapped(kExitCodes, 12) << "\n";
    return out.str();
}

// Text for roff: a leading dot or quote would be a request, and a dash would become a hyphen.
std::string roff(const std::string& text) {
    std::string out;
    bool line_start = true;
    for (char c : text) {
        if (line_start && (c == '.' || c == '\'')) {
            out += "\\&";
        }
        if (c == '-') {
            out += "\\-";
        } else if (c == '\\') {
            out += "\\e";
        } else {
            out += c;
        }
        line_start = c == '\n';
    }
    return out;
}

void manual_of_command(std::ostream& out, const CommandSpec& spec) {
    out << ".SS kdfs " << spec.name << (spec.options.empty() ? "" : " [options]")
        << (spec.operands.empty() ? "" : " ") << roff(spec.operands) << "\n"
        << roff(spec.summary) << ".\n";
    if (!spec.details.empty()) {
        out << ".PP\n" << roff(spec.details) << "\n";
    }
    for (const OptionSpec& option : spec.options) {
        out << ".TP\n.B \\-\\-" << roff(option.name)
            << (option.value.empty() ? "" : " " + roff(option.value)) << "\n"
            << roff(option.help) << "\n";
    }
    for (const std::string& example : spec.examples) {
        out << ".PP\n.EX\n    " << roff(example) << "\n.EE\n";
    }
}

int show_help(const std::vector<std::string>& words, Console& console);

int unknown_command(const std::string& name, Console& console) {
    std::vector<std::string> names = {"help", "version"};
    for (const Command& command : all_commands()) {
        names.push_back(command.spec.name);
    }
    std::string near = nearest(name, names);
    std::string hint = near.empty() ? "" : ", did you mean 'kdfs " + near + "'?";
    return console.fail(
        Error(Errc::kInvalidArgument,
              "there is no command '" + name + "'" + hint + "; kdfs help lists them"));
}

int run_command(const Command& command, std::span<const std::string> words, Console& console) {
    Result<Arguments> arguments = Arguments::parse(command.spec, words);
    if (!arguments.ok()) {
        return console.fail(arguments.error());
    }
    if (arguments->help()) {
        console.out << help_text(command.spec);
        return kExitOk;
    }
    return command.run(*arguments, console);
}

int show_help(const std::vector<std::string>& words, Console& console) {
    if (words.size() < 2) {
        console.out << overview();
        return kExitOk;
    }
    if (words[1] == "--man") {
        console.out << manual_page();
        return kExitOk;
    }
    for (const Command& command : all_commands()) {
        if (command.spec.name == words[1]) {
            console.out << help_text(command.spec);
            return kExitOk;
        }
    }
    return unknown_command(words[1], console);
}

}  // namespace

int Console::fail(const Error& error) {
    err << "kdfs: " << (error.detail.empty() ? error.to_string() : error.detail) << "\n";
    switch (error.code) {
        case Errc::kInvalidArgument:
            return kExitUsage;
        case Errc::kUnreachable:
            return kExitUnreachable;
        default:
            return kExitFailed;
    }
}

std::vector<Command> all_commands() {
    return {up_command(),
            down_command(),
            status_command(),
            where_command(),
            policy_command(),
            doctor_command(),
            fsck_command(),
            scrub_command()};
}

std::string manual_page() {
    std::ostringstream out;
    out << ".\\\" Made by: kdfs help --man\n"
        << ".TH KDFS 1 \"\" \"kdfs " << kVersion << "\" \"User Commands\"\n"
        << ".SH NAME\nkdfs \\- run and look after a kdfs cluster\n"
        << ".SH SYNOPSIS\n.B kdfs\nCOMMAND [options]\n"
        << ".SH DESCRIPTION\n"
        << roff(kIntroduction) << "\n.PP\n"
        << roff(kFindingTheCluster) << "\n.SH COMMANDS\n";
    for (const Command& command : all_commands()) {
        manual_of_command(out, command.spec);
    }
    out << ".SH EXIT STATUS\n"
        << roff(kExitCodes) << "\n"
        << ".SH ENVIRONMENT\n.TP\n.B KDFS_DIR\nThe state directory of the cluster to speak to.\n";
    return out.str();
}

int run_kdfs(const std::vector<std::string>& words, Console& console) {
    if (words.empty()) {
        console.err << overview();
        return kExitUsage;
    }
    const std::string& name = words[0];
    if (name == "help" || name == "--help" || name == "-h") {
        return show_help(words, console);
    }
    if (name == "version" || name == "--version") {
        console.out << "kdfs " << kVersion << "\n";
        return kExitOk;
    }
    for (const Command& command : all_commands()) {
        if (command.spec.name == name) {
            return run_command(command, std::span(words).subspan(1), console);
        }
    }
    return unknown_command(name, console);
}

}  // namespace kdfs::tools
