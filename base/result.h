#pragma once

#include <fmt/core.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

/// Result<T, E>: a value or the reason why there is none. The interface is a subset of
/// std::expected, which the compilers that we support do not have yet.
namespace ivmm {

/// Who has to act on an error; decides the exit code of the program.
enum class ErrorKind {
    kFailed,  ///< the operation did not succeed: exit code 1
    kUsage,   ///< wrong arguments or configuration: exit code 2
    kHost,    ///< this host cannot do it (no KVM, no permission): exit code 2
};

/// A host fault. The message names the thing, the reason and, where there is one, the way out.
struct Error {
    ErrorKind kind = ErrorKind::kFailed;
    int code = 0;  ///< errno of the failed system call, or 0
    std::string message;
};

/// The process exit code that stands for an error of this kind.
constexpr int exit_code(ErrorKind kind) {
    return kind == ErrorKind::kFailed ? 1 : 2;
}

/// The errno that answers a system call, where the caller of the call is the one to act: cheap to
/// make and to pass on.
struct Errno {
    int code = 0;
};

/// Carries an error into a Result<T, E> of any T.
template <class E>
struct UnexpectedError {
    E error;
};
template <class E>
UnexpectedError(E) -> UnexpectedError<E>;
using Unexpected = UnexpectedError<Error>;

/// The text of an errno.
inline std::string error_text(int code) {
    return std::strerror(code);  // NOLINT(concurrency-mt-unsafe): safe in glibc since 2.32
}

template <class... Args>
[[nodiscard]] Unexpected fail(fmt::format_string<Args...> format, Args&&... args) {
    return {{ErrorKind::kFailed, 0, fmt::format(format, std::forward<Args>(args)...)}};
}

template <class... Args>
[[nodiscard]] Unexpected fail_as(ErrorKind kind, fmt::format_string<Args...> format,
                                 Args&&... args) {
    return {{kind, 0, fmt::format(format, std::forward<Args>(args)...)}};
}

/// As fail(), with ": <text of errno>" appended. Reads errno before anything else.
template <class... Args>
[[nodiscard]] Unexpected fail_errno(fmt::format_string<Args...> format, Args&&... args) {
    const int code = errno;
    return {{ErrorKind::kFailed, code,
             fmt::format(format, std::forward<Args>(args)...) + ": " + error_text(code)}};
}

/// An errno, as the error of a Result<T, Errno>.
[[nodiscard]] inline UnexpectedError<Errno> posix_error(int code) {
    return {Errno{code}};
}
/// The errno of the system call that has just failed.
[[nodiscard]] inline UnexpectedError<Errno> last_posix_error() {
    return posix_error(errno);
}

template <class T, class E = Error>
class [[nodiscard]] Result {
 public:
    using value_type = T;

    Result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
    Result(UnexpectedError<E> unexpected)
        : content_(std::in_place_index<1>, std::move(unexpected.error)) {}

    bool has_value() const { return content_.index() == 0; }
    explicit operator bool() const { return has_value(); }

    T& operator*() & { return std::get<0>(content_); }
    const T& operator*() const& { return std::get<0>(content_); }
    T&& operator*() && { return std::get<0>(std::move(content_)); }
    T* operator->() { return &std::get<0>(content_); }
    const T* operator->() const { return &std::get<0>(content_); }

    E& error() & { return std::get<1>(content_); }
    const E& error() const& { return std::get<1>(content_); }
    E&& error() && { return std::get<1>(std::move(content_)); }

 private:
    std::variant<T, E> content_;
};

template <class E>
class [[nodiscard]] Result<void, E> {
 public:
    using value_type = void;

    Result() = default;
    Result(UnexpectedError<E> unexpected) : error_(std::move(unexpected.error)) {}

    bool has_value() const { return !error_.has_value(); }
    explicit operator bool() const { return has_value(); }

    E& error() & { return *error_; }
    const E& error() const& { return *error_; }
    E&& error() && { return *std::move(error_); }

 private:
    std::optional<E> error_;
};

/// What a file system operation gives: a value or the errno of its caller.
template <class T>
using PosixResult = Result<T, Errno>;

/// Puts what was being done in front of an error's reason.
inline Unexpected annotate(Error error, std::string_view context) {
    error.message = std::string(context) + ": " + error.message;
    return {std::move(error)};
}

}  // namespace ivmm

#define IVMM_CONCAT_(a, b) a##b
#define IVMM_CONCAT(a, b) IVMM_CONCAT_(a, b)

/// Returns the error of a Result<void> expression from the enclosing function.
#define IVMM_TRY(expression)                                                \
    do {                                                                    \
        if (auto ivmm_result = (expression); !ivmm_result) {                \
            return ::ivmm::UnexpectedError{std::move(ivmm_result).error()}; \
        }                                                                   \
    } while (false)

/// `IVMM_ASSIGN(auto x, expression);` binds the value, or returns the error.
/// (A declaration cannot be in parentheses.)
#define IVMM_ASSIGN(declaration, expression)                                                    \
    auto IVMM_CONCAT(ivmm_result_, __LINE__) = (expression);                                    \
    if (!IVMM_CONCAT(ivmm_result_, __LINE__)) {                                                 \
        return ::ivmm::UnexpectedError{std::move(IVMM_CONCAT(ivmm_result_, __LINE__)).error()}; \
    }                                                                                           \
    declaration = *std::move(/* NOLINT(bugprone-macro-parentheses) */                           \
                             IVMM_CONCAT(ivmm_result_, __LINE__))
