#pragma once

#include <string_view>

namespace kdfs {

// Rules that a test build breaks on purpose, to show that some test notices: see docs/protocol.md
// and `tools/test.sh mutants`. tests/mutants.txt lists the names. In every other build this is
// false at compile time and leaves nothing behind.
#ifdef KDFS_MUTANTS
// Whether the environment variable KDFS_MUTANT is `name`.
bool mutant(std::string_view name);
#else
constexpr bool mutant(std::string_view) { return false; }
#endif

}  // namespace kdfs
