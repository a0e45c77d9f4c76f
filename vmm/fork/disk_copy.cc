#include "vmm/fork/disk_copy.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "vmm/fork/sparse_copy.h"

namespace ivmm {
namespace {

/// A guest's disk on a FUSE file system is written without the page cache, which may hold older
/// data (see UringDisk): so it is read without it as well.
bool is_fuse(const std::string& path) {
    struct statfs info {};
    return ::statfs(path.c_str(), &info) == 0 && info.f_type == FUSE_SUPER_MAGIC;
}

}  // namespace

Result<DiskCopy> DiskCopy::create(const std::string& source, const std::string& target) {
    DiskCopy copy(source, target);
    IVMM_TRY(copy.open());
    if (auto examined = copy.examine(); !examined) {
        ::unlink(target.c_str());
        return Unexpected{std::move(examined).error()};
    }
    return copy;
}

Result<void> DiskCopy::open() {
    const int direct = is_fuse(source_path_) ? O_DIRECT : 0;
    source_.reset(::open(source_path_.c_str(), O_RDONLY | O_CLOEXEC | direct));
    if (!source_) {
        return fail_errno("cannot open disk '{}' to copy it", source_path_);
    }
    target_.reset(::open(target_path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!target_ && errno == EEXIST) {
        return fail(
            "the clone's copy of disk '{}' would be '{}', which exists already; remove "
            "that file, or give the clone another name",
            source_path_, target_path_);
    }
    if (!target_) {
        return fail_errno("cannot create '{}' for the clone's copy of disk '{}'", target_path_,
                          source_path_);
    }
    return {};
}

Result<void> DiskCopy::examine() {
    struct stat info {};
    if (::fstat(target_.get(), &info) != 0) {
        return fail_errno("'{}'", target_path_);
    }
    file_system_ = info.st_dev;
    const auto shareable = can_reflink(source_.get(), target_.get());
    if (!shareable) {
        return annotate(shareable.error(), "disk '" + source_path_ + "'");
    }
    if (*shareable) {
        method_ = Method::kReflink;
        return {};
    }
    const auto bytes = data_bytes(source_.get());
    if (!bytes) {
        return annotate(bytes.error(), "disk '" + source_path_ + "'");
    }
    bytes_ = *bytes;
    return {};
}

Result<uint64_t> DiskCopy::free_bytes() const {
    struct statvfs info {};
    if (::fstatvfs(target_.get(), &info) != 0) {
        return fail_errno("cannot find out how much space is left for '{}'", target_path_);
    }
    return uint64_t{info.f_bavail} * info.f_frsize;
}

Result<void> DiskCopy::make() {
    auto made = method_ == Method::kReflink ? reflink(source_.get(), target_.get())
                                            : [&]() -> Result<void> {
        IVMM_TRY(copy_sparse(source_.get(), target_.get()));
        return {};
    }();
    if (!made) {
        return annotate(std::move(made).error(),
                        fmt::format("disk '{}' is not copied to '{}'", source_path_, target_path_));
    }
    return {};
}

}  // namespace ivmm
