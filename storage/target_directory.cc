#include "storage/target_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

namespace kdfs::storage {
namespace {

constexpr const char* kMagic = "kdfs-target 1";

Status sync_directory(const std::string& directory) {
    int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return errno_error(errno, "open " + directory);
    }
    int failed = ::fsync(fd) != 0 ? errno : 0;
    ::close(fd);
    if (failed != 0) {
        return errno_error(failed, "sync " + directory);
    }
    return {};
}

// Nothing if there is no such file.
Result<std::optional<TargetIdentity>> read_identity(const std::string& directory) {
    std::string path = directory + "/target";
    if (::access(path.c_str(), F_OK) != 0) {
        if (errno != ENOENT) {
            return errno_error(errno, "open " + path);
        }
        return std::optional<TargetIdentity>();
    }
    std::ifstream in(path);
    std::string magic;
    std::getline(in, magic);
    std::string node_word;
    std::string target_word;
    std::string cluster_word;
    TargetIdentity out;
    in >> node_word >> out.node.value >> target_word >> out.target.value >> cluster_word >>
        out.cluster_id;
    if (!in || magic != kMagic || node_word != "node" || target_word != "target" ||
        cluster_word != "cluster" || !out.node || !out.target) {
        return Error(Errc::kMalformed,
                     path +
                         " is not the identity of a kdfs target, or of another version; give "
                         "another directory");
    }
    if (out.cluster_id == "-") {
        out.cluster_id.clear();
    }
    return std::optional<TargetIdentity>(std::move(out));
}

Result<bool> is_empty(const std::string& directory) {
    DIR* dir = ::opendir(directory.c_str());
    if (dir == nullptr) {
        return errno_error(errno, "open " + directory);
    }
    bool empty = true;
    while (const dirent* entry = ::readdir(dir)) {
        std::string name = entry->d_name;
        empty =
            empty && (name == "." || name == ".." || name == "lost+found" || name == "target.new");
    }
    ::closedir(dir);
    return empty;
}

template <class IdType>
Status check_id(const std::string& directory, const char* what, IdType stored, IdType wanted) {
    if (wanted && wanted != stored) {
        return Error(Errc::kExists,
                     directory + " belongs to " + what + " " + std::to_string(stored.value) +
                         ", not to " + what + " " + std::to_string(wanted.value) +
                         "; give another directory");
    }
    return {};
}

}  // namespace

Status write_small_file(const std::string& path, const std::string& text) {
    std::string fresh = path + ".new";
    int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno_error(errno, "open " + fresh);
    }
    bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                   ::fsync(fd) == 0;
    int why = written ? 0 : errno;
    ::close(fd);
    if (!written || ::rename(fresh.c_str(), path.c_str()) != 0) {
        return errno_error(why != 0 ? why : errno, "write " + path);
    }
    size_t slash = path.rfind('/');
    return sync_directory(slash == std::string::npos ? "." : path.substr(0, slash));
}

Status store_identity(const std::string& directory, const TargetIdentity& identity) {
    std::ostringstream text;
    text << kMagic << "\nnode " << identity.node.value << "\ntarget " << identity.target.value
         << "\ncluster " << (identity.cluster_id.empty() ? "-" : identity.cluster_id) << "\n";
    return write_small_file(directory + "/target", text.str());
}

Result<TargetIdentity> open_target_directory(const std::string& directory,
                                             const TargetIdentity& wanted) {
    if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
        return errno_error(errno, "make directory " + directory);
    }
    KDFS_TRY_ASSIGN(std::optional<TargetIdentity> stored, read_identity(directory));
    if (!stored) {
        KDFS_TRY_ASSIGN(bool empty, is_empty(directory));
        if (!empty) {
            return Error(Errc::kNotEmpty,
                         directory + " holds something that is no kdfs target; give an empty one");
        }
        if (!wanted.node || !wanted.target) {
            return Error(Errc::kInvalidArgument,
                         directory + " is new: give its --node-id and --target-id");
        }
        KDFS_TRY(store_identity(directory, wanted));
        return wanted;
    }
    KDFS_TRY(check_id(directory, "node", stored->node, wanted.node));
    KDFS_TRY(check_id(directory, "target", stored->target, wanted.target));
    if (!wanted.cluster_id.empty() && !stored->cluster_id.empty() &&
        wanted.cluster_id != stored->cluster_id) {
        return Error(Errc::kWrongCluster,
                     directory + " belongs to cluster " + stored->cluster_id + ", not to " +
                         wanted.cluster_id + "; give a directory of this cluster or an empty one");
    }
    if (stored->cluster_id.empty()) {
        stored->cluster_id = wanted.cluster_id;
    }
    return std::move(*stored);
}

}  // namespace kdfs::storage
