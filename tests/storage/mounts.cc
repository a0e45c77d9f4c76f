#include "tests/storage/mounts.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>

#include "base/unique_fd.h"
#include "tests/support/own_mounts.h"

namespace ivmm::test {
namespace {

constexpr unsigned long kShutdown = _IOR('X', 125, __u32);  // EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
constexpr uint32_t kNoLogFlush = 2;

bool private_mounts = false;

struct Loop {
    UniqueFd fd;
    std::string path;
};

/// A loop device over a file, detached when nobody has it open or mounted.
Result<Loop> attach_loop(const std::string& file) {
    const UniqueFd image(::open(file.c_str(), O_RDWR | O_CLOEXEC));
    const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    if (!image || !control) {
        return fail_errno("cannot open {} and /dev/loop-control", file);
    }
    constexpr int kAttempts = 50;  // others take the free one in between
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
        if (number < 0) {
            break;
        }
        const std::string path = fmt::format("/dev/loop{}", number);
        UniqueFd loop(::open(path.c_str(), O_RDWR | O_CLOEXEC));
        loop_config config{};
        config.fd = static_cast<__u32>(image.get());
        config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
        if (loop && ::ioctl(loop.get(), LOOP_CONFIGURE, &config) == 0) {
            return Loop{std::move(loop), path};
        }
        if (errno != EBUSY) {
            break;
        }
    }
    return fail_errno("cannot attach a loop device to {}", file);
}

}  // namespace

void enter_private_mounts() {
    private_mounts = enter_own_mounts();
}

std::string why_no_mounts() {
    if (!private_mounts) {
        return "needs root (a mount namespace of its own)";
    }
    if (::access("/dev/fuse", R_OK | W_OK) != 0) {
        return "needs /dev/fuse";
    }
    std::ifstream types("/proc/filesystems");
    std::string word;
    while (types >> word) {
        if (word == "overlay") {
            return {};
        }
    }
    return "needs overlayfs in the kernel (modprobe overlay)";
}

int run(const std::vector<std::string>& command) {
    std::vector<char*> arguments;
    for (const auto& word : command) {
        arguments.push_back(const_cast<char*>(word.c_str()));
    }
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t silent;
    ::posix_spawn_file_actions_init(&silent);
    ::posix_spawn_file_actions_addopen(&silent, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_addopen(&silent, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    pid_t pid = -1;
    const int spawned =
        ::posix_spawnp(&pid, arguments[0], &silent, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&silent);
    int status = 0;
    if (spawned != 0 || ::waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
        return -1;
    }
    return WEXITSTATUS(status);
}

Result<Mount> Mount::make(const std::string& source, const std::string& target,
                          const std::string& type, unsigned long flags,
                          const std::string& options) {
    if (::mount(source.c_str(), target.c_str(), type.c_str(), flags, options.c_str()) != 0) {
        return fail_errno("cannot mount {} ({}, {}) on {}", source, type, options, target);
    }
    return Mount(target);
}

Result<Mount> Mount::overlayfs(const std::string& target, const std::vector<std::string>& lower,
                               const std::string& upper, const std::string& work) {
    std::string options = "index=off,xino=off,metacopy=off";
    options += upper.empty() ? ",redirect_dir=follow"
                             : ",volatile,redirect_dir=on,upperdir=" + upper + ",workdir=" + work;
    std::string separator = ",lowerdir=";
    for (const auto& branch : lower) {
        options += separator + branch;
        separator = ":";
    }
    return make("overlay", target, "overlay", upper.empty() ? MS_RDONLY : 0, options);
}

Mount::Mount(Mount&& other) noexcept : target_(std::exchange(other.target_, {})) {}
Mount& Mount::operator=(Mount&& other) noexcept {
    std::swap(target_, other.target_);
    return *this;
}
Mount::~Mount() {
    if (!target_.empty()) {
        ::umount2(target_.c_str(), MNT_DETACH);
    }
}

Result<void> Mount::unmount() {
    if (!target_.empty() && ::umount2(target_.c_str(), 0) != 0) {
        return fail_errno("cannot unmount {}", target_);
    }
    target_.clear();
    return {};
}

Result<DiskImage> DiskImage::make(const std::string& file, uint64_t size, const std::string& type,
                                  const std::string& mountpoint) {
    const UniqueFd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
        return fail_errno("cannot make {}", file);
    }
    const int status = type == "xfs" ? run({"mkfs.xfs", "-q", "-f", file})
                                     : run({"mkfs." + type, "-q", "-F", "-m", "0", file});
    if (status != 0) {
        return fail_as(ErrorKind::kHost, "mkfs.{} of {} failed ({})", type, file, status);
    }
    DiskImage image;
    image.file_ = file;
    image.type_ = type;
    image.mountpoint_ = mountpoint;
    IVMM_TRY(image.mount());
    return image;
}

Result<void> DiskImage::mount() {
    IVMM_ASSIGN(Loop loop, attach_loop(file_));
    IVMM_ASSIGN(mount_, Mount::make(loop.path, mountpoint_, type_, 0, ""));
    return {};  // the mount keeps the loop device
}

Result<void> DiskImage::cut_power() {
    const UniqueFd root(::open(mountpoint_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    uint32_t how = kNoLogFlush;
    if (!root || ::ioctl(root.get(), kShutdown, &how) != 0) {
        return fail_errno("cannot cut the power of {}", mountpoint_);
    }
    return {};
}

Result<void> DiskImage::power_on() {
    IVMM_TRY(mount_.unmount());
    IVMM_TRY(mount());  // replays the journal
    IVMM_TRY(mount_.unmount());
    const int status =
        type_ == "xfs" ? run({"xfs_repair", "-n", file_}) : run({"e2fsck", "-fn", file_});
    if (status != 0) {
        return fail("the check of {} ({}) says {}", file_, type_, status);
    }
    return mount();
}

}  // namespace ivmm::test
