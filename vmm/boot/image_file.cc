#include "vmm/boot/image_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cassert>

#include "base/checked.h"

namespace ivmm {

Result<ImageFile> ImageFile::open(std::string_view what, const std::string& path) {
    std::string name = fmt::format("{} {}", what, path);
    // Non-blocking: to open a pipe without a writer must not hang.
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat facts {};
    if (!fd || ::fstat(fd.get(), &facts) != 0) {
        auto failure = fail_errno("cannot open {}", name);
        failure.error.kind = ErrorKind::kUsage;
        return failure;
    }
    if (!S_ISREG(facts.st_mode)) {
        return fail_as(ErrorKind::kUsage, "{} is {}, not a regular file", name,
                       S_ISDIR(facts.st_mode) ? "a directory" : "a device or a pipe");
    }
    if (facts.st_size == 0) {
        return fail_as(ErrorKind::kUsage, "{} is empty", name);
    }
    return ImageFile(std::move(name), std::move(fd), static_cast<uint64_t>(facts.st_size));
}

Result<void> ImageFile::read(uint64_t offset, ByteSpan out) const {
    return read_fully(offset, {out.data(), out.size()});
}

Result<void> ImageFile::load(uint64_t offset, uint64_t length, GuestMemory& memory,
                             Gpa target) const {
    const auto window = memory.dma(target, length);
    assert(window.has_value());
    IVMM_TRY(read_fully(offset, *window));
    memory.mark_dirty(target, length);
    return {};
}

Result<void> ImageFile::read_fully(uint64_t offset, iovec target) const {
    if (!range_within(offset, target.iov_len, size_)) {
        return fail_as(ErrorKind::kUsage,
                       "{} is truncated: it has {} bytes, its headers speak of {} more at {:#x}",
                       name_, size_, target.iov_len, offset);
    }
    auto* position = static_cast<std::byte*>(target.iov_base);
    uint64_t left = target.iov_len;
    while (left > 0) {
        const ssize_t n = ::pread(fd_.get(), position, left, static_cast<off_t>(offset));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno("cannot read {}", name_);
        }
        if (n == 0) {
            return fail("{} became shorter while it was read", name_);
        }
        const auto count = static_cast<uint64_t>(n);
        position += count;
        offset += count;
        left -= count;
    }
    return {};
}

}  // namespace ivmm
