#include "tools/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <sstream>

namespace kdfs::tools {

namespace {

// Closes a descriptor when it goes.
class OpenFile {
public:
    OpenFile(const std::string& path, int flags, mode_t mode = 0)
        : fd_(open(path.c_str(), flags | O_CLOEXEC, mode)) {}
    OpenFile(const OpenFile&) = delete;
    OpenFile& operator=(const OpenFile&) = delete;
    ~OpenFile() {
        if (fd_ >= 0) {
            close(fd_);
        }
    }
    bool ok() const { return fd_ >= 0; }
    int fd() const { return fd_; }

private:
    int fd_;
};

Result<std::string> read_all(int fd, const std::string& path, size_t bytes_max) {
    std::string text;
    std::string buffer(16 * 1024, '\0');
    for (;;) {
        ssize_t got = read(fd, buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return errno_error(errno, "read " + path);
        }
        if (got == 0) {
            return text;
        }
        text.append(buffer, 0, static_cast<size_t>(got));
        if (text.size() > bytes_max) {
            return Error(Errc::kTooBig,
                         path + " has more than " + std::to_string(bytes_max) + " bytes");
        }
    }
}

Status write_all(int fd, const std::string& path, std::string_view text) {
    while (!text.empty()) {
        ssize_t done = write(fd, text.data(), text.size());
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return errno_error(errno, "write " + path);
        }
        text.remove_prefix(static_cast<size_t>(done));
    }
    return {};
}

Status sync_folder_of(const std::string& path) {
    size_t slash = path.rfind('/');
    std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    OpenFile file(folder, O_RDONLY | O_DIRECTORY);
    if (!file.ok() || fsync(file.fd()) != 0) {
        return errno_error(errno, "sync folder " + folder);
    }
    return {};
}

}  // namespace

Result<std::string> read_file(const std::string& path, size_t bytes_max) {
    OpenFile file(path, O_RDONLY);
    if (!file.ok()) {
        return errno_error(errno, "open " + path);
    }
    return read_all(file.fd(), path, bytes_max);
}

Result<std::string> read_tail(const std::string& path, size_t bytes_max) {
    OpenFile file(path, O_RDONLY);
    if (!file.ok()) {
        return errno_error(errno, "open " + path);
    }
    struct stat info {};
    if (fstat(file.fd(), &info) == 0 && info.st_size > static_cast<off_t>(bytes_max)) {
        lseek(file.fd(), info.st_size - static_cast<off_t>(bytes_max), SEEK_SET);
    }
    // The file may grow meanwhile; twice the wish is bound enough.
    return read_all(file.fd(), path, 2 * bytes_max);
}

Status write_file(const std::string& path, std::string_view text, mode_t mode) {
    std::string temporary = path + ".new";
    unlink(temporary.c_str());
    {
        OpenFile file(temporary, O_WRONLY | O_CREAT | O_EXCL, mode);
        if (!file.ok()) {
            return errno_error(errno, "create " + temporary);
        }
        KDFS_TRY(write_all(file.fd(), temporary, text));
        if (fsync(file.fd()) != 0) {
            return errno_error(errno, "sync " + temporary);
        }
    }
    if (rename(temporary.c_str(), path.c_str()) != 0) {
        return errno_error(errno, "rename " + temporary + " to " + path);
    }
    return sync_folder_of(path);
}

Status make_directory(const std::string& path, mode_t mode) {
    if (mkdir(path.c_str(), mode) == 0) {
        return {};
    }
    int code = errno;
    struct stat info {};
    if (code == EEXIST && stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
        return {};
    }
    return errno_error(code, "make directory " + path);
}

std::vector<std::string> list_directory(const std::string& path) {
    std::vector<std::string> names;
    std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(path.c_str()), closedir);
    if (!folder) {
        return names;
    }
    while (const dirent* entry = readdir(folder.get())) {
        std::string name = entry->d_name;
        if (name != "." && name != "..") {
            names.push_back(name);
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

Result<std::string> read_link(const std::string& path) {
    std::string target(4096, '\0');
    ssize_t got = readlink(path.c_str(), target.data(), target.size());
    if (got < 0) {
        return errno_error(errno, "read link " + path);
    }
    target.resize(static_cast<size_t>(got));
    return target;
}

std::string absolute_path(const std::string& path) {
    std::string full = path;
    if (path.empty() || path[0] != '/') {
        std::string here(4096, '\0');
        full = (getcwd(here.data(), here.size()) == nullptr ? "/" : std::string(here.c_str())) +
               "/" + path;
    }
    std::vector<std::string> parts;
    std::istringstream in(full);
    for (std::string part; std::getline(in, part, '/');) {
        if (part == ".." && !parts.empty()) {
            parts.pop_back();
        } else if (!part.empty() && part != "." && part != "..") {
            parts.push_back(part);
        }
    }
    std::string out;
    for (const std::string& part : parts) {
        out += "/" + part;
    }
    return out.empty() ? "/" : out;
}

FreeSpace free_space(const std::string& path) {
    FreeSpace out;
    out.at = absolute_path(path);
    struct statvfs space {};
    while (statvfs(out.at.c_str(), &space) != 0 && out.at != "/") {
        out.at = out.at.substr(0, out.at.rfind('/'));
        out.at = out.at.empty() ? "/" : out.at;
    }
    out.free_bytes = space.f_bavail * space.f_frsize;
    return out;
}

bool path_within(const std::string& path, const std::string& folder) {
    if (folder == "/" || path == folder) {
        return true;
    }
    return path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/';
}

}  // namespace kdfs::tools
