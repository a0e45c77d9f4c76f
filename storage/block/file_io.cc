#include "storage/block/file_io.h"

#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>

namespace ivmm::storage {

PosixResult<size_t> read_at(int fd, uint64_t offset, ByteSpan out) {
    size_t done = 0;
    while (done < out.size()) {
        const ssize_t n =
            ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
        if (n == 0) {
            break;
        }
        if (n > 0) {
            done += static_cast<size_t>(n);
        } else if (errno != EINTR) {
            return last_posix_error();
        }
    }
    return done;
}

PosixResult<void> write_at(int fd, uint64_t offset, std::span<const ConstByteSpan> pieces) {
    std::array<iovec, 8> vectors{};
    size_t count = 0;
    for (const ConstByteSpan piece : pieces) {
        if (!piece.empty()) {
            // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): writing only reads it.
            vectors.at(count++) = {const_cast<std::byte*>(piece.data()), piece.size()};
        }
    }
    size_t first = 0;
    while (first < count) {
        const ssize_t n = ::pwritev(fd, &vectors.at(first), static_cast<int>(count - first),
                                    static_cast<off_t>(offset));
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return last_posix_error();
        }
        if (n == 0) {
            return posix_error(EIO);
        }
        offset += static_cast<size_t>(n);
        auto written = static_cast<size_t>(n);
        while (first < count && written >= vectors.at(first).iov_len) {
            written -= vectors.at(first++).iov_len;
        }
        if (written != 0) {
            iovec& rest = vectors.at(first);
            rest = {static_cast<std::byte*>(rest.iov_base) + written, rest.iov_len - written};
        }
    }
    return {};
}

PosixResult<void> write_at(int fd, uint64_t offset, ConstByteSpan data) {
    return write_at(fd, offset, std::span(&data, 1));
}

PosixResult<uint64_t> file_size(int fd) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) {
        return last_posix_error();
    }
    return static_cast<uint64_t>(status.st_size);
}

}  // namespace ivmm::storage
