#include "vmm/control/runtime_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <thread>

#include "vmm/config/validate.h"

namespace ivmm {
namespace {

constexpr std::string_view kLockSuffix = ".lock";
constexpr int kBacklog = 64;

struct flock whole_file(short type) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    return lock;
}

/// Open file description locks: unlike flock(2)'s they can be asked for without being taken.
bool try_lock(int fd) {
    struct flock lock = whole_file(F_WRLCK);
    return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool is_locked(int fd) {
    struct flock lock = whole_file(F_WRLCK);
    return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/// Whether the path still leads to the open file.
bool is_same_file(int fd, const std::string& path) {
    struct stat opened {};
    struct stat named {};
    return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/// The process that a lock file names, if it names one that is alive.
pid_t living_owner(int fd) {
    std::array<char, 16> text{};
    const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
    pid_t pid = 0;
    if (n > 0) {
        std::from_chars(text.data(), text.data() + n, pid);
    }
    return pid > 0 && (::kill(pid, 0) == 0 || errno == EPERM) ? pid : 0;
}

Result<sockaddr_un> socket_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return fail_as(ErrorKind::kHost,
                       "the control socket's path '{}' is longer than the {} bytes a socket may "
                       "have; use a shorter name or XDG_RUNTIME_DIR",
                       path, sizeof address.sun_path - 1);
    }
    std::copy(path.begin(), path.end(), address.sun_path);
    return address;
}

const sockaddr* generic(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

}  // namespace

GuestLock::~GuestLock() {
    if (!file_) {
        return;
    }
    ::unlink((base_ + ".sock").c_str());
    struct stat log {};
    const std::string log_path = base_ + ".log";
    if (::lstat(log_path.c_str(), &log) == 0 && log.st_size == 0) {
        ::unlink(log_path.c_str());
    }
    // Last, and while it is still locked: who opens the file before sees the lock, who opens it
    // later gets a new file.
    ::unlink((base_ + std::string(kLockSuffix)).c_str());
}

Result<UniqueFd> GuestLock::listen() {
    const std::string path = base_ + ".sock";
    IVMM_ASSIGN(const auto address, socket_address(path));
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket) {
        return fail_errno("cannot create the control socket");
    }
    // Whoever has left this behind is gone: the lock is ours.
    ::unlink(path.c_str());
    // The mode of the socket file is the descriptor's; only then does it get its name.
    ::fchmod(socket.get(), 0600);
    if (::bind(socket.get(), generic(address), sizeof address) != 0 ||
        ::listen(socket.get(), kBacklog) != 0) {
        return fail_errno("cannot make the control socket '{}'", path);
    }
    return socket;
}

RuntimeDir RuntimeDir::find() {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody changes the environment.
    const char* const xdg = std::getenv("XDG_RUNTIME_DIR");
    if (xdg != nullptr && xdg[0] == '/') {
        return RuntimeDir(std::string(xdg) + "/ivmm");
    }
    if (::geteuid() == 0) {
        return RuntimeDir("/run/ivmm");
    }
    return RuntimeDir(fmt::format("/tmp/ivmm-{}", ::geteuid()));
}

RuntimeDir RuntimeDir::find_overlay() {
    const std::string parent = find().path_;
    return RuntimeDir(parent + "/overlay", parent, "overlay server");
}

RuntimeDir RuntimeDir::find_switch() {
    const std::string parent = find().path_;
    return RuntimeDir(parent + "/switch", parent, "switch");
}

RuntimeDir RuntimeDir::find_watch() {
    const std::string parent = find().path_;
    return RuntimeDir(parent + "/watch", parent, "watch of guest");
}

Result<void> RuntimeDir::create() const {
    if (!parent_.empty()) {
        IVMM_TRY(RuntimeDir(parent_).create());
    }
    if (::mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST) {
        const int code = errno;
        return fail_as(ErrorKind::kHost,
                       "cannot create the folder '{}': {}; set XDG_RUNTIME_DIR to one that you "
                       "may write to",
                       path_, error_text(code));
    }
    return check();
}

Result<void> RuntimeDir::check() const {
    struct stat info {};
    if (::lstat(path_.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) ||
        info.st_uid != ::geteuid() || (info.st_mode & 077) != 0) {
        return fail_as(ErrorKind::kHost,
                       "'{}' is not a folder that only this user may use; remove it, or set "
                       "XDG_RUNTIME_DIR to another place",
                       path_);
    }
    return {};
}

Result<GuestLock> RuntimeDir::lock(const std::string& name) const {
    IVMM_TRY(create());
    const std::string path = base(name) + std::string(kLockSuffix);
    // Another `run` that has not written its number yet, or an `ls` that is about to remove the
    // file, hold the lock for a moment only.
    constexpr int kAttempts = 100;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
        if (!file) {
            const int code = errno;
            return fail_as(ErrorKind::kHost, "cannot open '{}': {}", path, error_text(code));
        }
        if (try_lock(file.get())) {
            if (!is_same_file(file.get(), path)) {
                continue;
            }
            const std::string pid = fmt::format("{}\n", ::getpid());
            if (::ftruncate(file.get(), 0) != 0 ||
                ::pwrite(file.get(), pid.data(), pid.size(), 0) != std::ssize(pid)) {
                return fail_errno("cannot write '{}'", path);
            }
            return GuestLock(std::move(file), base(name));
        }
        if (const pid_t owner = living_owner(file.get()); owner != 0) {
            return parent_.empty()
                       ? fail(
                             "a guest named '{}' is running (pid {}); use another --name, or "
                             "`ivmm stop {}`",
                             name, owner, name)
                       : fail("the {} '{}' is running (pid {})", kind_, name, owner);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return fail("'{}' is locked by an unknown process", path);
}

Result<UniqueFd> RuntimeDir::connect(const std::string& name,
                                     std::chrono::milliseconds patience) const {
    // Anyone may have made a folder in /tmp.
    if (::access(path_.c_str(), F_OK) == 0) {
        IVMM_TRY(check());
    }
    const std::string path = socket_path(name);
    IVMM_ASSIGN(const auto address, socket_address(path));
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket) {
        return fail_errno("cannot create a socket");
    }
    // A process that is stopped or stuck does not accept, so its backlog can be full.
    const auto us =
        std::max<int64_t>(std::chrono::microseconds(patience).count(), 1);  // 0: for ever
    constexpr int64_t kUsPerSecond = 1'000'000;
    const timeval timeout{us / kUsPerSecond, us % kUsPerSecond};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (::connect(socket.get(), generic(address), sizeof address) != 0) {
        if (errno == ENOENT || errno == ECONNREFUSED) {
            return parent_.empty()
                       ? fail("no guest named '{}' is running; `ivmm ls` shows those that are",
                              name)
                       : fail("no {} '{}' is running", kind_, name);
        }
        return fail_errno("cannot reach the process behind '{}'", path);
    }
    return socket;
}

Result<RuntimeDir::Scan> RuntimeDir::scan() const {
    Scan found;
    const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(path_.c_str()), ::closedir);
    if (!folder) {
        return found;
    }
    IVMM_TRY(check());
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody else reads this stream
    while (const dirent* const entry = ::readdir(folder.get())) {
        const std::string_view file_name = entry->d_name;
        if (!file_name.ends_with(kLockSuffix)) {
            continue;
        }
        std::string name(file_name.substr(0, file_name.size() - kLockSuffix.size()));
        const std::string path = base(name) + std::string(kLockSuffix);
        UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
        if (!file || !is_guest_name(name)) {
            continue;
        }
        if (is_locked(file.get())) {
            found.running.push_back(std::move(name));
        } else if (try_lock(file.get()) && is_same_file(file.get(), path)) {
            const GuestLock leftover(std::move(file), base(name));
            found.removed.push_back(std::move(name));
        }
    }
    std::sort(found.running.begin(), found.running.end());
    std::sort(found.removed.begin(), found.removed.end());
    return found;
}

Result<std::vector<std::string>> RuntimeDir::running() const {
    IVMM_ASSIGN(auto found, scan());
    return std::move(found.running);
}

Result<std::vector<std::string>> RuntimeDir::remove_leftovers() const {
    IVMM_ASSIGN(auto found, scan());
    return std::move(found.removed);
}

}  // namespace ivmm
