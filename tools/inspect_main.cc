#include "kdfs/kv/rocks_reader.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/files.h"
#include "tools/inspect.h"

#include <iostream>

namespace kdfs::tools {
namespace {

constexpr uint64_t kRecordsShown = 1000;
constexpr size_t kCaptureBytesMax = 64 << 20;

using RecordText = Result<std::string> (*)(std::string_view, std::string_view);

CommandSpec inspect_spec() {
    CommandSpec spec;
    spec.program = "kdfs-inspect";
    spec.summary = "Print stored records and frames as text";
    spec.operands = "meta|chunks DIRECTORY, or frame FILE";
    spec.operands_min = 2;
    spec.operands_max = 2;
    spec.details =
        "meta: the records of a metadata server, from the directory with its store; chunks: those "
        "of a target's store. Both are read without changing anything, also while the daemon "
        "runs. frame: captured frames, one after the other, from a file, or from - for stdin. A "
        "record or frame that is damaged is named, and the exit code is 1.";
    spec.options = {
        {"first", "HEX", "begin with this key; for meta, a table's letter such as 64 (dentries)"},
        {"limit", "N", "records or frames to show at most (default 1000; 0 shows all)"},
        {"hex", "", "frame: the file holds hexadecimal digits"}};
    spec.examples = {"kdfs-inspect meta /var/tmp/k1/mds/kv --limit 20",
                     "kdfs-inspect frame --hex capture.txt"};
    return spec;
}

Status print_store(const Arguments& arguments, RecordText to_text, Console& console) {
    KDFS_TRY_ASSIGN(uint64_t limit, arguments.number("limit", kRecordsShown, {}));
    KDFS_TRY_ASSIGN(std::string first, parse_hex(arguments.get("first")));
    KDFS_TRY_ASSIGN(std::unique_ptr<RocksReader> store, RocksReader::open(arguments.operands()[1]));
    uint64_t shown = 0;
    uint64_t damaged = 0;
    KDFS_TRY(store->scan(first, {}, [&](std::string_view key, std::string_view value) {
        Result<std::string> text = to_text(key, value);
        if (text.ok()) {
            console.out << *text;
        } else {
            ++damaged;
            console.out << "damaged record, key " << bytes_text(key, 64) << "\n  "
                        << text.error().to_string() << "\n";
        }
        return limit == 0 || ++shown < limit;
    }));
    if (damaged != 0) {
        return Error(Errc::kCorrupt,
                     std::to_string(damaged) +
                         " of the records shown are damaged; kdfs fsck "
                         "tells what that means for files");
    }
    return {};
}

Result<std::string> read_capture(const Arguments& arguments) {
    const std::string& name = arguments.operands()[1];
    std::string bytes;
    if (name == "-") {
        bytes.resize(kCaptureBytesMax + 1);
        std::cin.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        bytes.resize(static_cast<size_t>(std::cin.gcount()));
        if (bytes.size() > kCaptureBytesMax) {
            return Error(Errc::kTooBig,
                         "stdin has more than " + std::to_string(kCaptureBytesMax) + " bytes");
        }
    } else {
        KDFS_TRY_ASSIGN(bytes, read_file(name, kCaptureBytesMax));
    }
    if (arguments.has("hex")) {
        return parse_hex(bytes);
    }
    return bytes;
}

Status print_frames(const Arguments& arguments, Console& console) {
    KDFS_TRY_ASSIGN(uint64_t limit, arguments.number("limit", kRecordsShown, {}));
    KDFS_TRY_ASSIGN(std::string bytes, read_capture(arguments));
    if (bytes.empty()) {
        return Error(Errc::kMalformed, arguments.operands()[1] + " is empty");
    }
    std::string_view rest = bytes;
    for (uint64_t shown = 0; !rest.empty() && (limit == 0 || shown < limit); ++shown) {
        size_t used = 0;
        Result<std::string> text = frame_text(rest, used);
        if (!text.ok()) {
            return Error(text.error().code,
                         "at byte " + std::to_string(bytes.size() - rest.size()) + " of " +
                             arguments.operands()[1] + ": " + text.error().detail);
        }
        console.out << *text;
        if (used > rest.size()) {
            return Error(Errc::kMalformed, "the payload of the last frame is cut off");
        }
        rest.remove_prefix(used);
    }
    return {};
}

int inspect(const std::vector<std::string>& words, Console& console) {
    CommandSpec spec = inspect_spec();
    Result<Arguments> arguments = Arguments::parse(spec, words);
    if (!arguments.ok()) {
        return console.fail(arguments.error());
    }
    if (arguments->help()) {
        console.out << help_text(spec);
        return kExitOk;
    }
    const std::string& what = arguments->operands()[0];
    Status done;
    if (what == "meta") {
        done = print_store(*arguments, meta_record_text, console);
    } else if (what == "chunks") {
        done = print_store(*arguments, chunk_record_text, console);
    } else if (what == "frame") {
        done = print_frames(*arguments, console);
    } else {
        done = Error(Errc::kInvalidArgument,
                     "kdfs-inspect knows meta, chunks and frame, not '" + what + "'");
    }
    return done.ok() ? kExitOk : console.fail(done.error());
}

}  // namespace
}  // namespace kdfs::tools

int main(int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    kdfs::tools::Console console{std::cout, std::cerr, false};
    return kdfs::tools::inspect(words, console);
}
