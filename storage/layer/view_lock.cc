#include "storage/layer/view_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/layer/files.h"

namespace ivmm::storage {

namespace {

/// The whole file, for the open file description: so two holders in one process exclude each
/// other, too.
struct flock whole_file() {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    return lock;
}

std::string holder(int locks_dir, const std::string& view) {
    const auto text = read_small_file(locks_dir, view.c_str(), 16);
    return text && !text->empty() ? "process " + *text : "another process";
}

}  // namespace

Result<UniqueFd> take_view_lock(int locks_dir, const std::string& view) {
    while (true) {
        UniqueFd file(::openat(locks_dir, view.c_str(),
                               O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
                               S_IRUSR | S_IWUSR));
        if (!file) {
            return fail_errno("cannot open the lock of view \"{}\"", view);
        }
        auto lock = whole_file();
        if (::fcntl(file.get(), F_OFD_SETLK, &lock) != 0) {
            if (errno == EAGAIN || errno == EACCES) {
                return fail("view \"{}\" is in use by {}", view, holder(locks_dir, view));
            }
            return fail_errno("cannot lock view \"{}\"", view);
        }
        struct stat mine {};
        struct stat present {};
        if (::fstat(file.get(), &mine) != 0) {
            return fail_errno("cannot lock view \"{}\"", view);
        }
        if (::fstatat(locks_dir, view.c_str(), &present, AT_SYMLINK_NOFOLLOW) != 0 ||
            mine.st_ino != present.st_ino) {
            continue;  // its former holder has deleted it in between
        }
        const auto pid = std::to_string(::getpid());
        if (::ftruncate(file.get(), 0) != 0 ||
            ::pwrite(file.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
            return fail_errno("cannot write the lock of view \"{}\"", view);
        }
        return file;
    }
}

PosixResult<bool> is_view_locked(int locks_dir, const std::string& view) {
    const UniqueFd file(
        ::openat(locks_dir, view.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file) {
        if (errno == ENOENT) {
            return false;
        }
        return last_posix_error();
    }
    auto lock = whole_file();
    if (::fcntl(file.get(), F_OFD_GETLK, &lock) != 0) {
        return last_posix_error();
    }
    return lock.l_type != F_UNLCK;
}

PosixResult<void> delete_view_lock(int locks_dir, const std::string& view) {
    if (::unlinkat(locks_dir, view.c_str(), 0) != 0 && errno != ENOENT) {
        return last_posix_error();
    }
    return {};
}

}  // namespace ivmm::storage
