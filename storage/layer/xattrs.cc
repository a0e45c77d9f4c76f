#include <fcntl.h>
#include <sys/xattr.h>

#include <climits>
#include <cstring>

#include <array>

#include "storage/layer/marks.h"

namespace ivmm::storage {

namespace {

/// A path by which the *xattr() calls, which take no directory descriptor, reach an object.
class ProcPath {
 public:
    explicit ProcPath(At at) : itself_(*at.path == '\0') {
        // The prefix must not make a path too long that is not.
        if (std::strlen(at.path) > PATH_MAX - kPrefixRoom) {
            opened_ = UniqueFd(::openat(at.dir, at.path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
            error_ = opened_ ? 0 : errno;
            at = {opened_.get(), ""};
            itself_ = true;
        }
        path_ = fmt::format("/proc/self/fd/{}{}{}", at.dir, itself_ ? "" : "/", at.path);
    }
    const char* get() const { return path_.c_str(); }
    /// 0, or why there is no path.
    int error() const { return error_; }
    /// Whether it is the link in /proc that has to be followed.
    bool itself() const { return itself_; }

 private:
    static constexpr size_t kPrefixRoom = 64;
    std::string path_;
    bool itself_;
    UniqueFd opened_;
    int error_ = 0;
};

/// Gets something of a size that may change meanwhile: `get(buffer, size)` as the system calls do.
template <class Get>
PosixResult<std::string> get_all(const Get& get) {
    std::array<char, 256> small;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    ssize_t n = get(small.data(), small.size());
    if (n >= 0) {
        return std::string(small.data(), static_cast<size_t>(n));
    }
    std::string large;
    while (n < 0 && errno == ERANGE) {
        const ssize_t size = get(nullptr, 0);
        if (size < 0) {
            break;
        }
        large.resize(static_cast<size_t>(size) + 1);
        n = get(large.data(), large.size());
    }
    if (n < 0) {
        return last_posix_error();
    }
    large.resize(static_cast<size_t>(n));
    return large;
}

}  // namespace

PosixResult<std::optional<std::string>> get_xattr(At at, const std::string& name) {
    const ProcPath path(at);
    if (path.error() != 0) {
        return posix_error(path.error());
    }
    auto value = get_all([&](char* buffer, size_t size) {
        return path.itself() ? ::getxattr(path.get(), name.c_str(), buffer, size)
                             : ::lgetxattr(path.get(), name.c_str(), buffer, size);
    });
    if (value) {
        return std::optional(*std::move(value));
    }
    if (value.error().code == ENODATA) {
        return std::optional<std::string>();
    }
    return posix_error(value.error().code);
}

PosixResult<void> set_xattr(At at, const std::string& name, std::string_view value) {
    const ProcPath path(at);
    if (path.error() != 0) {
        return posix_error(path.error());
    }
    if ((path.itself()
             ? ::setxattr(path.get(), name.c_str(), value.data(), value.size(), 0)
             : ::lsetxattr(path.get(), name.c_str(), value.data(), value.size(), 0)) != 0) {
        return last_posix_error();
    }
    return {};
}

PosixResult<void> remove_xattr(At at, const std::string& name) {
    const ProcPath path(at);
    if (path.error() != 0) {
        return posix_error(path.error());
    }
    if ((path.itself() ? ::removexattr(path.get(), name.c_str())
                       : ::lremovexattr(path.get(), name.c_str())) != 0) {
        return last_posix_error();
    }
    return {};
}

PosixResult<std::vector<std::string>> list_xattrs(At at) {
    const ProcPath path(at);
    if (path.error() != 0) {
        return posix_error(path.error());
    }
    IVMM_ASSIGN(const auto all, get_all([&](char* buffer, size_t size) {
                    return path.itself() ? ::listxattr(path.get(), buffer, size)
                                         : ::llistxattr(path.get(), buffer, size);
                }));
    std::vector<std::string> names;
    for (size_t start = 0; start < all.size();) {
        names.emplace_back(all.c_str() + start);
        start += names.back().size() + 1;
    }
    return names;
}

}  // namespace ivmm::storage
