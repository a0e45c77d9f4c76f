#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

/// Mounts and loop devices of the tests. They are made in a mount namespace of the test program's
/// own, and loop devices detach themselves: so they all go with the program, whatever ends it.
namespace ivmm::test {

/// To be called first in main(), before there are threads. Does nothing where it is not permitted.
void enter_private_mounts();
/// Why nothing can be mounted here (no root, no /dev/fuse, no overlayfs), or an empty text.
std::string why_no_mounts();

/// A mount, undone at the end.
class Mount {
 public:
    Mount() = default;
    static Result<Mount> make(const std::string& source, const std::string& target,
                              const std::string& type, unsigned long flags,
                              const std::string& options);
    /// The kernel's overlayfs, as the oracle is to be mounted (without syncs). Without an upper:
    /// read-only.
    static Result<Mount> overlayfs(const std::string& target, const std::vector<std::string>& lower,
                                   const std::string& upper, const std::string& work);
    Mount(Mount&& other) noexcept;
    Mount& operator=(Mount&& other) noexcept;
    Mount(const Mount&) = delete;
    Mount& operator=(const Mount&) = delete;
    ~Mount();
    /// Errors: it is in use.
    Result<void> unmount();

 private:
    explicit Mount(std::string target) : target_(std::move(target)) {}
    std::string target_;
};

/// A file system in a file, whose power can be cut.
class DiskImage {
 public:
    DiskImage() = default;
    /// Makes the file and mounts it. `type`: "ext4" or "xfs". Errors: kHost if there is no mkfs.
    static Result<DiskImage> make(const std::string& file, uint64_t size, const std::string& type,
                                  const std::string& mountpoint);
    /// What has not reached the disk yet never will. Every access fails until power_on().
    Result<void> cut_power();
    /// Unmounts, replays the journal, checks the file system, and mounts it again.
    Result<void> power_on();
    const std::string& mountpoint() const { return mountpoint_; }

 private:
    Result<void> mount();
    std::string file_, type_, mountpoint_;
    Mount mount_;
};

/// Runs a program silently; its exit code, or -1.
int run(const std::vector<std::string>& command);

}  // namespace ivmm::test
