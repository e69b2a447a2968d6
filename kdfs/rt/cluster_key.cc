#include "kdfs/rt/cluster_key.h"

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <memory>
#include <utility>

namespace kdfs {
namespace {

constexpr size_t kHexBytes = sizeof(ClusterKey) * 2;

struct FdCloser {
    int fd;
    ~FdCloser() {
        if (fd >= 0) {
            ::close(fd);
        }
    }
};

int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return -1;
}

Result<ClusterKey> parse_key(std::string_view text, const std::string& path) {
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
        text.remove_suffix(1);
    }
    ClusterKey key{};
    bool good = text.size() == kHexBytes;
    for (size_t i = 0; good && i < key.size(); ++i) {
        int high = hex_digit(text[2 * i]);
        int low = hex_digit(text[2 * i + 1]);
        good = high >= 0 && low >= 0;
        key[i] = static_cast<std::byte>(high * 16 + low);
    }
    if (!good) {
        return Error(Errc::kMalformed,
                     "cluster key " + path +
                         ": not 64 hexadecimal digits: copy the file again "
                         "from another node of the cluster");
    }
    return key;
}

template <class Number>
bool parse_number(std::string_view text, Number& out) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && end == text.data() + text.size();
}

Status sync_parent(const std::string& path) {
    std::filesystem::path parent = std::filesystem::path(path).parent_path();
    std::string name = parent.empty() ? "." : parent.string();
    FdCloser directory{::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (directory.fd < 0 || ::fsync(directory.fd) != 0) {
        return errno_error(errno, "sync directory " + name);
    }
    return {};
}

}  // namespace

Result<ClusterKey> load_cluster_key(const std::string& path) {
    FdCloser file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (file.fd < 0) {
        return errno_error(errno, "open cluster key " + path);
    }
    struct stat attributes {};
    if (::fstat(file.fd, &attributes) != 0) {
        return errno_error(errno, "stat cluster key " + path);
    }
    constexpr mode_t kOthers = 077;
    if ((attributes.st_mode & kOthers) != 0) {
        return Error(Errc::kNotPermitted,
                     "cluster key " + path + " may be read by others: chmod 600 " + path);
    }
    std::array<char, kHexBytes + 16> text{};
    ssize_t size = ::read(file.fd, text.data(), text.size());
    if (size < 0) {
        return errno_error(errno, "read cluster key " + path);
    }
    return parse_key(std::string_view(text.data(), static_cast<size_t>(size)), path);
}

Result<ClusterKey> create_cluster_key(const std::string& path) {
    ClusterKey key{};
    if (::getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size())) {
        return errno_error(errno, "getrandom: no cluster key can be made");
    }
    std::string text;
    for (std::byte b : key) {
        constexpr std::string_view kDigits = "0123456789abcdef";
        text += kDigits[static_cast<size_t>(b) >> 4];
        text += kDigits[static_cast<size_t>(b) & 15];
    }
    text += '\n';
    FdCloser file{::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
    if (file.fd < 0) {
        return errno_error(errno, "create cluster key " + path);
    }
    if (::write(file.fd, text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
        ::fsync(file.fd) != 0) {
        return errno_error(errno, "write cluster key " + path);
    }
    KDFS_TRY(sync_parent(path));
    return key;
}

std::string encode_identity(std::string_view cluster_id, const PeerIdentity& peer) {
    std::string out(cluster_id);
    out += ':';
    out += std::to_string(static_cast<unsigned>(peer.role));
    out += ':';
    out += std::to_string(peer.node.value);
    out += ':';
    out += peer.name;
    return out.substr(0, kIdentityBytesMax);
}

Result<ClusterPeer> decode_identity(std::string_view text) {
    ClusterPeer out;
    size_t first = text.find(':');
    size_t second = first == text.npos ? first : text.find(':', first + 1);
    size_t third = second == text.npos ? second : text.find(':', second + 1);
    unsigned role = 0;
    bool good = third != text.npos && text.size() <= kIdentityBytesMax && first != 0 &&
                parse_number(text.substr(first + 1, second - first - 1), role) &&
                role <= static_cast<unsigned>(PeerRole::kTool) &&
                parse_number(text.substr(second + 1, third - second - 1), out.peer.node.value);
    if (!good) {
        return Error(Errc::kMalformed, "the peer's identity is not one of kdfs");
    }
    out.cluster_id = text.substr(0, first);
    out.peer.role = static_cast<PeerRole>(role);
    out.peer.name = text.substr(third + 1);
    return out;
}

Result<ClusterKey> derive_member_key(const ClusterKey& key, std::string_view identity) {
    std::unique_ptr<EVP_KDF, decltype(&EVP_KDF_free)> kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr),
                                                          &EVP_KDF_free);
    std::unique_ptr<EVP_KDF_CTX, decltype(&EVP_KDF_CTX_free)> context(
        kdf ? EVP_KDF_CTX_new(kdf.get()) : nullptr,
        &EVP_KDF_CTX_free);
    std::string digest = "SHA256";
    std::string salt = "kdfs member key 1";
    std::string info(identity);
    ClusterKey secret = key;
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(), 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret.data(), secret.size()),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt.data(), salt.size()),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info.data(), info.size()),
        OSSL_PARAM_construct_end()};
    ClusterKey out{};
    bool good = context && EVP_KDF_derive(context.get(),
                                          reinterpret_cast<unsigned char*>(out.data()),
                                          out.size(),
                                          parameters) == 1;
    OPENSSL_cleanse(secret.data(), secret.size());
    if (!good) {
        return Error(Errc::kUnauthenticated,
                     "OpenSSL has no HKDF-SHA256 here: check its configuration");
    }
    return out;
}

}  // namespace kdfs
