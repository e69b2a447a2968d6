#pragma once

#include "kdfs/base/check.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace kdfs {

// Every failure that crosses a function, process or disk boundary. The numeric value travels on the
// wire: never renumber, only append before kErrcEnd.
enum class Errc : uint16_t {
    // The caller asked for something that cannot be: reported to the application as it stands.
    kNotFound = 1,
    kExists = 2,
    kNotDirectory = 3,
    kIsDirectory = 4,
    kNotEmpty = 5,
    kAccess = 6,
    kNotPermitted = 7,
    kInvalidArgument = 8,
    kNameTooLong = 9,
    kTooManyLinks = 10,
    kCrossDevice = 11,
    kNoData = 12,
    kRange = 13,
    kFileTooBig = 14,
    kNotSupported = 15,
    kSymlinkLoop = 16,
    kTooBig = 17,
    kBadHandle = 18,
    kStaleHandle = 19,
    // The system cannot do it for good.
    kNoSpace = 20,
    kIo = 21,
    kCorrupt = 22,
    kLostData = 23,
    kFenced = 24,
    kUnauthenticated = 25,
    kMalformed = 26,
    kWrongVersion = 27,
    kWrongCluster = 28,
    kUnimplemented = 29,
    kCancelled = 30,
    // Worth another try at the same place.
    kBusy = 31,
    kTimeout = 32,
    kOverloaded = 33,
    // Worth a try at another replica, or at the same one once it is back.
    kUnreachable = 34,
    kNotServing = 35,
    // The caller's cluster map or lease is older than the peer's: fetch the newer one, then try
    // again.
    kStaleMap = 36,
    kStaleVersion = 37,
    // A read that would block was asked not to (see KvStore).
    kWouldBlock = 38,
    // What was sent changed on its way. Worth another try at the same place.
    kGarbled = 39,
    kErrcEnd = 40,
};

// What a caller that did not cause the error does about it.
enum class ErrorClass { kCaller, kFatal, kRetry, kRetryElsewhere, kRefresh };

ErrorClass error_class(Errc code);
// The errno an application sees.
int to_errno(Errc code);
// The name in messages, such as "NoSpace".
std::string_view errc_name(Errc code);
// The code that stands for an errno from the operating system; kIo for one without a better match.
Errc errc_from_errno(int error_number);
// A code from the wire; kMalformed for a number that is none.
Errc errc_from_wire(uint32_t value);

// A failure: the code for programs, the detail for people. The detail names the object, the cause
// and, where one exists, the next step; it is added once, where these are known.
struct Error {
    Errc code = Errc::kIo;
    std::string detail;

    Error() = default;
    Error(Errc c, std::string d) : code(c), detail(std::move(d)) {}
    explicit Error(Errc c) : code(c) {}

    // "NoSpace: target t3 is full (/data/t3)".
    std::string to_string() const;
};

// Error for a failed system call: "open /data/t3/slab: Permission denied".
Error errno_error(int error_number, std::string what);

// A value or an Error. Reading the value of a failed Result aborts.
template <class T>
class [[nodiscard]] Result {
public:
    // NOLINTNEXTLINE(google-explicit-constructor): `return value;` is the point of the class.
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    // NOLINTNEXTLINE(google-explicit-constructor)
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

    bool ok() const { return state_.index() == 0; }
    explicit operator bool() const { return ok(); }
    T& value() & {
        KDFS_CHECK(ok());
        return *std::get_if<0>(&state_);
    }
    const T& value() const& {
        KDFS_CHECK(ok());
        return *std::get_if<0>(&state_);
    }
    T&& value() && {
        KDFS_CHECK(ok());
        return std::move(*std::get_if<0>(&state_));
    }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*this).value(); }
    const Error& error() const& {
        KDFS_CHECK(!ok());
        return *std::get_if<1>(&state_);
    }
    Error&& error() && {
        KDFS_CHECK(!ok());
        return std::move(*std::get_if<1>(&state_));
    }

private:
    std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    // NOLINTNEXTLINE(google-explicit-constructor)
    Result(Error error) : error_(std::move(error)) {}

    bool ok() const { return !error_.has_value(); }
    explicit operator bool() const { return ok(); }
    const Error& error() const& {
        KDFS_CHECK(!ok());
        return *error_;
    }
    Error&& error() && {
        KDFS_CHECK(!ok());
        return std::move(*error_);
    }

private:
    std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace kdfs

#define KDFS_CONCAT_INNER(a, b) a##b
#define KDFS_CONCAT(a, b) KDFS_CONCAT_INNER(a, b)

// Leaves the function with the error of `expr` (a Result), if it is one.
#define KDFS_TRY(expr)                                 \
    do {                                               \
        auto kdfs_try_result = (expr);                 \
        if (!kdfs_try_result.ok()) {                   \
            return std::move(kdfs_try_result).error(); \
        }                                              \
    } while (false)

// `decl` = the value of `expr`, or leaves with its error. `expr` may hold a co_await only in the CO
// twin.
#define KDFS_TRY_ASSIGN(decl, expr)                                 \
    auto KDFS_CONCAT(kdfs_try_, __LINE__) = (expr);                 \
    if (!KDFS_CONCAT(kdfs_try_, __LINE__).ok()) {                   \
        return std::move(KDFS_CONCAT(kdfs_try_, __LINE__)).error(); \
    }                                                               \
    decl = std::move(KDFS_CONCAT(kdfs_try_, __LINE__)).value()

#define KDFS_CO_TRY(expr)                                 \
    do {                                                  \
        auto kdfs_try_result = (expr);                    \
        if (!kdfs_try_result.ok()) {                      \
            co_return std::move(kdfs_try_result).error(); \
        }                                                 \
    } while (false)

#define KDFS_CO_TRY_ASSIGN(decl, expr)                                 \
    auto KDFS_CONCAT(kdfs_try_, __LINE__) = (expr);                    \
    if (!KDFS_CONCAT(kdfs_try_, __LINE__).ok()) {                      \
        co_return std::move(KDFS_CONCAT(kdfs_try_, __LINE__)).error(); \
    }                                                                  \
    decl = std::move(KDFS_CONCAT(kdfs_try_, __LINE__)).value()
