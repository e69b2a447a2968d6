#include "kdfs/base/result.h"

#include <array>
#include <cerrno>
#include <cstring>

namespace kdfs {
namespace {

struct Entry {
    Errc code;
    int error_number;
    ErrorClass error_class;
    std::string_view name;
};

constexpr std::array kEntries = {
    Entry{Errc::kNotFound, ENOENT, ErrorClass::kCaller, "NotFound"},
    Entry{Errc::kExists, EEXIST, ErrorClass::kCaller, "Exists"},
    Entry{Errc::kNotDirectory, ENOTDIR, ErrorClass::kCaller, "NotDirectory"},
    Entry{Errc::kIsDirectory, EISDIR, ErrorClass::kCaller, "IsDirectory"},
    Entry{Errc::kNotEmpty, ENOTEMPTY, ErrorClass::kCaller, "NotEmpty"},
    Entry{Errc::kAccess, EACCES, ErrorClass::kCaller, "Access"},
    Entry{Errc::kNotPermitted, EPERM, ErrorClass::kCaller, "NotPermitted"},
    Entry{Errc::kInvalidArgument, EINVAL, ErrorClass::kCaller, "InvalidArgument"},
    Entry{Errc::kNameTooLong, ENAMETOOLONG, ErrorClass::kCaller, "NameTooLong"},
    Entry{Errc::kTooManyLinks, EMLINK, ErrorClass::kCaller, "TooManyLinks"},
    Entry{Errc::kCrossDevice, EXDEV, ErrorClass::kCaller, "CrossDevice"},
    Entry{Errc::kNoData, ENODATA, ErrorClass::kCaller, "NoData"},
    Entry{Errc::kRange, ERANGE, ErrorClass::kCaller, "Range"},
    Entry{Errc::kFileTooBig, EFBIG, ErrorClass::kCaller, "FileTooBig"},
    Entry{Errc::kNotSupported, EOPNOTSUPP, ErrorClass::kCaller, "NotSupported"},
    Entry{Errc::kSymlinkLoop, ELOOP, ErrorClass::kCaller, "SymlinkLoop"},
    Entry{Errc::kTooBig, E2BIG, ErrorClass::kCaller, "TooBig"},
    Entry{Errc::kBadHandle, EBADF, ErrorClass::kCaller, "BadHandle"},
    Entry{Errc::kStaleHandle, ESTALE, ErrorClass::kCaller, "StaleHandle"},
    Entry{Errc::kNoSpace, ENOSPC, ErrorClass::kFatal, "NoSpace"},
    Entry{Errc::kIo, EIO, ErrorClass::kFatal, "Io"},
    Entry{Errc::kCorrupt, EIO, ErrorClass::kRetryElsewhere, "Corrupt"},
    Entry{Errc::kLostData, EIO, ErrorClass::kFatal, "LostData"},
    Entry{Errc::kFenced, EIO, ErrorClass::kFatal, "Fenced"},
    Entry{Errc::kUnauthenticated, EACCES, ErrorClass::kFatal, "Unauthenticated"},
    Entry{Errc::kMalformed, EIO, ErrorClass::kFatal, "Malformed"},
    Entry{Errc::kWrongVersion, EPROTO, ErrorClass::kFatal, "WrongVersion"},
    Entry{Errc::kWrongCluster, EPROTO, ErrorClass::kFatal, "WrongCluster"},
    Entry{Errc::kUnimplemented, ENOSYS, ErrorClass::kFatal, "Unimplemented"},
    Entry{Errc::kCancelled, EINTR, ErrorClass::kFatal, "Cancelled"},
    Entry{Errc::kBusy, EBUSY, ErrorClass::kRetry, "Busy"},
    Entry{Errc::kTimeout, ETIMEDOUT, ErrorClass::kRetry, "Timeout"},
    Entry{Errc::kOverloaded, EAGAIN, ErrorClass::kRetry, "Overloaded"},
    Entry{Errc::kUnreachable, EHOSTUNREACH, ErrorClass::kRetryElsewhere, "Unreachable"},
    Entry{Errc::kNotServing, EHOSTUNREACH, ErrorClass::kRetryElsewhere, "NotServing"},
    Entry{Errc::kStaleMap, EAGAIN, ErrorClass::kRefresh, "StaleMap"},
    Entry{Errc::kStaleVersion, EAGAIN, ErrorClass::kRefresh, "StaleVersion"},
    Entry{Errc::kWouldBlock, EAGAIN, ErrorClass::kRetry, "WouldBlock"},
    Entry{Errc::kGarbled, EIO, ErrorClass::kRetry, "Garbled"},
};

constexpr bool entries_match_the_enumeration() {
    for (size_t i = 0; i < kEntries.size(); ++i) {
        if (static_cast<size_t>(kEntries[i].code) != i + 1) {
            return false;
        }
    }
    return kEntries.size() + 1 == static_cast<size_t>(Errc::kErrcEnd);
}
static_assert(entries_match_the_enumeration());

const Entry& entry(Errc code) {
    auto number = static_cast<size_t>(code);
    KDFS_CHECK(number >= 1 && number <= kEntries.size());
    return kEntries[number - 1];
}

}  // namespace

ErrorClass error_class(Errc code) { return entry(code).error_class; }

int to_errno(Errc code) { return entry(code).error_number; }

std::string_view errc_name(Errc code) { return entry(code).name; }

Errc errc_from_errno(int error_number) {
    for (const Entry& e : kEntries) {
        if (e.error_number == error_number && e.error_class == ErrorClass::kCaller) {
            return e.code;
        }
    }
    switch (error_number) {
        case ENOSPC:
        case EDQUOT:
            return Errc::kNoSpace;
        case ETIMEDOUT:
            return Errc::kTimeout;
        case ECONNREFUSED:
        case ECONNRESET:
        case EPIPE:
        case EHOSTUNREACH:
        case ENETUNREACH:
            return Errc::kUnreachable;
        case EINTR:
        case ECANCELED:
            return Errc::kCancelled;
        default:
            return Errc::kIo;
    }
}

Errc errc_from_wire(uint32_t value) {
    bool known = value >= 1 && value < static_cast<uint32_t>(Errc::kErrcEnd);
    return known ? static_cast<Errc>(value) : Errc::kMalformed;
}

std::string Error::to_string() const {
    std::string out(errc_name(code));
    if (!detail.empty()) {
        out += ": ";
        out += detail;
    }
    return out;
}

Error errno_error(int error_number, std::string what) {
    what += ": ";
    what += std::strerror(error_number);
    return {errc_from_errno(error_number), std::move(what)};
}

}  // namespace kdfs
