#include "kdfs/base/mutant.h"

#include <cstdlib>
#include <string>

namespace kdfs {

bool mutant(std::string_view name) {
    static const std::string chosen = [] {
        const char* value = std::getenv("KDFS_MUTANT");
        return std::string(value == nullptr ? "" : value);
    }();
    return chosen == name;
}

}  // namespace kdfs
