#include "storage/union/object.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <climits>

namespace ivmm::storage {
namespace {

int object_flags(At at) {
    return AT_SYMLINK_NOFOLLOW | (at.path[0] == '\0' ? AT_EMPTY_PATH : 0);
}

}  // namespace

PosixResult<void> outcome(int result) {
    if (result != 0) {
        return last_posix_error();
    }
    return {};
}

PosixResult<struct stat> stat_object(At at) {
    struct stat attributes {};
    if (::fstatat(at.dir, at.path, &attributes, object_flags(at)) != 0) {
        return last_posix_error();
    }
    return attributes;
}

PosixResult<void> change_mode(At at, mode_t mode) {
    if (at.path[0] != '\0') {
        return outcome(::fchmodat(at.dir, at.path, mode, 0));
    }
    return outcome(::chmod(fmt::format("/proc/self/fd/{}", at.dir).c_str(), mode));
}

PosixResult<void> change_owner(At at, uid_t uid, gid_t gid) {
    return outcome(::fchownat(at.dir, at.path, uid, gid, object_flags(at)));
}

PosixResult<void> change_times(At at, const timespec& atime, const timespec& mtime) {
    const std::array<timespec, 2> times{atime, mtime};
    return outcome(::utimensat(at.dir, at.path, times.data(), object_flags(at)));
}

PosixResult<std::string> read_link_target(At at) {
    std::array<char, PATH_MAX> target{};
    const ssize_t n = ::readlinkat(at.dir, at.path, target.data(), target.size());
    if (n < 0) {
        return last_posix_error();
    }
    return std::string(target.data(), static_cast<size_t>(n));
}

PosixResult<void> copy_metadata(At from, const struct stat& attributes, At to) {
    IVMM_TRY(change_owner(to, attributes.st_uid, attributes.st_gid));
    if (!S_ISLNK(attributes.st_mode)) {
        IVMM_TRY(change_mode(to, attributes.st_mode & 07777));
    }
    auto names = list_xattrs(from);
    if (!names && names.error().code != EOPNOTSUPP) {
        return UnexpectedError{names.error()};
    }
    for (const std::string& name : names ? *names : std::vector<std::string>()) {
        if (Marks::is_private(name)) {
            continue;
        }
        IVMM_ASSIGN(const auto value, get_xattr(from, name));
        if (!value) {
            continue;
        }
        const auto set = set_xattr(to, name, *value);
        if (!set && (set.error().code != EOPNOTSUPP || name.starts_with("user."))) {
            return set;
        }
    }
    return change_times(to, attributes.st_atim, attributes.st_mtim);
}

}  // namespace ivmm::storage
