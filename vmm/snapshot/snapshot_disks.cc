#include "vmm/snapshot/snapshot_disks.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/unique_fd.h"
#include "vmm/overlay/mount_table.h"

namespace ivmm {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;

Result<uint64_t> block_device_size(const std::string& path) {
    const UniqueFd device(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    uint64_t size = 0;
    if (!device || ::ioctl(device.get(), BLKGETSIZE64, &size) != 0) {
        return fail_errno("cannot find the size of disk '{}'", path);
    }
    return size;
}

}  // namespace

Result<SnapshotDisk> describe_disk(const std::string& path, bool own) {
    SnapshotDisk disk;
    IVMM_ASSIGN(disk.path, overlay::resolve(path));
    disk.own = own;
    struct stat info {};
    if (::stat(disk.path.c_str(), &info) != 0) {
        return fail_errno("cannot look at disk '{}'", disk.path);
    }
    if (S_ISBLK(info.st_mode)) {
        IVMM_ASSIGN(disk.size, block_device_size(disk.path));
        return disk;
    }
    disk.size = static_cast<uint64_t>(info.st_size);
    disk.mtime_ns = int64_t{info.st_mtim.tv_sec} * kNsPerSecond + info.st_mtim.tv_nsec;
    return disk;
}

Result<void> check_disk(const SnapshotDisk& disk, const std::string& path) {
    IVMM_ASSIGN(const auto now, describe_disk(path, disk.own));
    if (now.size != disk.size) {
        return fail("disk '{}' has {} bytes, and had {} when the snapshot was made", path, now.size,
                    disk.size);
    }
    if (now.mtime_ns != disk.mtime_ns) {
        return fail("disk '{}' has been changed since the snapshot was made", path);
    }
    return {};
}

}  // namespace ivmm
