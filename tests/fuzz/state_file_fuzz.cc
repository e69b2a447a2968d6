// Files that programs left for the next start.
//   u8 which: 0 kdfs.json of a state directory, 1 the identity of a target, 2 the cluster key;
//   rest: the file

#include "kdfs/rt/cluster_key.h"
#include "storage/target_directory.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/scratch_file.h"
#include "tools/state_dir.h"

#include <sys/stat.h>

#include <array>
#include <filesystem>

namespace kdfs::fuzz {
namespace {

// A folder in memory in which `name` is a link to the input.
class ScratchFolder {
public:
    ScratchFolder(const std::string& name, std::string_view text) : file_(text) {
        std::array<char, 32> path{"/dev/shm/kdfs-fuzz-XXXXXX"};
        require(::mkdtemp(path.data()) != nullptr, "a folder can be made");
        path_ = path.data();
        std::filesystem::create_symlink(file_.path(), path_ + "/" + name);
    }
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;
    ~ScratchFolder() { std::filesystem::remove_all(path_); }
    const std::string& path() const { return path_; }

private:
    ScratchFile file_;
    std::string path_;
};

void read_state(std::string_view text) {
    ScratchFolder folder("kdfs.json", text);
    auto state = tools::StateDir::open(folder.path());
    if (state.ok()) {
        const tools::ClusterSettings& settings = state->settings();
        require(settings.nodes >= 1 && settings.nodes <= tools::ClusterSettings::kNodesMax &&
                    settings.targets_per_node <= tools::ClusterSettings::kTargetsPerNodeMax,
                "settings are within their bounds");
    }
}

void read_identity(std::string_view text) {
    ScratchFolder folder("target", text);
    auto identity = storage::open_target_directory(folder.path(), storage::TargetIdentity());
    if (identity.ok()) {
        require(identity->node && identity->target, "a target has ids");
        require(storage::store_identity(folder.path(), *identity).ok(), "it can be written");
        auto again = storage::open_target_directory(folder.path(), *identity);
        require(again.ok() && again->cluster_id == identity->cluster_id, "and read again");
    }
}

}  // namespace
}  // namespace kdfs::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace kdfs;
    fuzz::Input input(fuzz::view_of(data, size));
    uint8_t which = input.u8() % 3;
    std::string_view text = input.rest();
    if (which == 0) {
        fuzz::read_state(text);
    } else if (which == 1) {
        fuzz::read_identity(text);
    } else {
        fuzz::ScratchFile file(text);
        ::fchmod(file.fd(), 0600);
        (void)load_cluster_key(file.path());
    }
    return 0;
}
