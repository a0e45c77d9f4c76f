#include "vmm/fork/sparse_copy.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace ivmm {
namespace {

/// Good for any alignment that direct I/O may ask for.
constexpr size_t kAlignment = 4096;
constexpr size_t kBufferSize = size_t{1} << 20;
/// A multiple of the block size of every file system; enough to see whether blocks can be shared.
constexpr uint64_t kProbe = uint64_t{1} << 20;

Result<off_t> size_of(int file) {
    // Of a block device, fstat(2) does not tell.
    const off_t size = ::lseek(file, 0, SEEK_END);
    if (size < 0) {
        return fail_errno("cannot find the size of the file");
    }
    return size;
}

Result<void> write_all(int target, const std::byte* data, size_t size, off_t at) {
    while (size > 0) {
        const ssize_t n = ::pwrite(target, data, size, at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return fail_errno("cannot write");
        }
        data += n;
        size -= static_cast<size_t>(n);
        at += n;
    }
    return {};
}

Result<void> read_and_write(int source, int target, off_t begin, off_t end) {
    const std::unique_ptr<std::byte, void (*)(void*)> buffer(
        static_cast<std::byte*>(std::aligned_alloc(kAlignment, kBufferSize)), &std::free);
    if (!buffer) {
        return fail("there is no memory for a copy");
    }
    // What is read begins and ends at a block; more than is wanted is read, and not written.
    constexpr auto kBlock = static_cast<off_t>(kAlignment);
    for (off_t at = begin / kBlock * kBlock; at < end;) {
        const ssize_t n = ::pread(source, buffer.get(), kBufferSize, at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? fail_errno("cannot read") : fail("the file has become shorter");
        }
        const off_t until = std::min<off_t>(at + n, end);
        const off_t from = std::max(at, begin);
        if (until > from) {
            IVMM_TRY(write_all(target, buffer.get() + (from - at),
                               static_cast<size_t>(until - from), from));
        }
        const off_t whole = (at + n) / kBlock * kBlock;
        at = whole > at ? whole : at + n;
    }
    return {};
}

/// Whether copy_file_range(2) cannot be used for these files at all.
bool is_unable(int code) {
    return code == EXDEV || code == EINVAL || code == EOPNOTSUPP || code == ENOSYS ||
           code == EPERM || code == EBADF;
}

Result<void> copy_range(int source, int target, off_t begin, off_t end) {
    const int flags = ::fcntl(source, F_GETFL);
    if (flags < 0 || (flags & O_DIRECT) != 0) {
        return read_and_write(source, target, begin, end);
    }
    off_t in = begin;
    off_t out = begin;
    while (in < end) {
        const ssize_t n =
            ::copy_file_range(source, &in, target, &out, static_cast<size_t>(end - in), 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && is_unable(errno)) {
            return read_and_write(source, target, in, end);
        }
        if (n <= 0) {
            return n < 0 ? fail_errno("cannot copy") : fail("the file has become shorter");
        }
    }
    return {};
}

}  // namespace

Result<void> for_each_data(int source,
                           const std::function<Result<void>(off_t begin, off_t end)>& use) {
    IVMM_ASSIGN(const off_t size, size_of(source));
    off_t at = 0;
    while (at < size) {
        off_t begin = ::lseek(source, at, SEEK_DATA);
        if (begin < 0 && errno == ENXIO) {
            return {};  // a hole up to the end
        }
        if (begin < 0 && errno != EINVAL && errno != EOPNOTSUPP) {
            return fail_errno("cannot find the data of the file");
        }
        off_t end = begin < 0 ? size : ::lseek(source, begin, SEEK_HOLE);
        begin = std::max(begin, at);
        end = end <= begin ? size : std::min(end, size);
        IVMM_TRY(use(begin, end));
        at = end;
    }
    return {};
}

Result<uint64_t> data_bytes(int source) {
    uint64_t bytes = 0;
    IVMM_TRY(for_each_data(source, [&](off_t begin, off_t end) -> Result<void> {
        bytes += static_cast<uint64_t>(end - begin);
        return {};
    }));
    return bytes;
}

Result<bool> can_reflink(int source, int target) {
    IVMM_ASSIGN(const off_t size, size_of(source));
    file_clone_range range{};
    range.src_fd = source;
    // A length of 0 is "up to the end", which need not be that of a block.
    range.src_length = static_cast<uint64_t>(size) <= kProbe ? 0 : kProbe;
    if (::ioctl(target, FICLONERANGE, &range) != 0) {
        return false;
    }
    if (::ftruncate(target, 0) != 0) {
        return fail_errno("cannot empty the file again");
    }
    // A reflink writes back what is not yet on the disk; what is done now is not done then.
    if (::fdatasync(source) != 0) {
        return fail_errno("cannot write back");
    }
    return true;
}

Result<void> reflink(int source, int target) {
    if (::ioctl(target, FICLONE, source) != 0) {
        return fail_errno("cannot share its blocks");
    }
    return {};
}

Result<uint64_t> copy_sparse(int source, int target) {
    IVMM_ASSIGN(const off_t size, size_of(source));
    if (::ftruncate(target, size) != 0) {
        return fail_errno("cannot set the size of the copy");
    }
    uint64_t bytes = 0;
    IVMM_TRY(for_each_data(source, [&](off_t begin, off_t end) -> Result<void> {
        bytes += static_cast<uint64_t>(end - begin);
        return copy_range(source, target, begin, end);
    }));
    return bytes;
}

}  // namespace ivmm
