#include "tools/command.h"

namespace kdfs::tools {

namespace {

CommandSpec fsck_spec() {
    CommandSpec spec;
    spec.name = "fsck";
    spec.summary = "Check that names, files, chunks and copies fit together";
    return spec;
}

int fsck(const Arguments&, Console& console) {
    return console.fail(Error(Errc::kUnimplemented, "kdfs fsck is not there yet"));
}

}  // namespace

Command fsck_command() { return {fsck_spec(), fsck}; }

}  // namespace kdfs::tools
