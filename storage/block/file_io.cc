#include "storage/block/file_io.h"

#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

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

namespace {

/// Bytes copied by the file system, or none: it cannot.
size_t share(int from, int to, uint64_t offset, uint64_t length) {
    auto from_offset = static_cast<off_t>(offset);
    auto to_offset = static_cast<off_t>(offset);
    const ssize_t n = ::copy_file_range(from, &from_offset, to, &to_offset, length, 0);
    return n > 0 ? static_cast<size_t>(n) : 0;
}

PosixResult<void> copy_data(int from, int to, uint64_t offset, uint64_t end) {
    constexpr size_t kAtOnce = 1 << 20;
    std::vector<std::byte> buffer;
    while (offset < end) {
        if (const size_t n = share(from, to, offset, end - offset); n != 0) {
            offset += n;
            continue;
        }
        buffer.resize(std::min<uint64_t>(kAtOnce, end - offset));
        IVMM_ASSIGN(const size_t n, read_at(from, offset, buffer));
        if (n == 0) {
            return posix_error(EIO);  // somebody has cut it off
        }
        IVMM_TRY(write_at(to, offset, ConstByteSpan(buffer).first(n)));
        offset += n;
    }
    return {};
}

}  // namespace

PosixResult<void> copy_range(int from, int to, uint64_t offset, uint64_t length) {
    const uint64_t end = offset + length;
    while (offset < end) {
        const off_t data = ::lseek(from, static_cast<off_t>(offset), SEEK_DATA);
        if (data < 0 && errno != ENXIO) {
            return last_posix_error();
        }
        if (data < 0 || static_cast<uint64_t>(data) >= end) {
            break;
        }
        const off_t hole = ::lseek(from, data, SEEK_HOLE);
        if (hole < 0) {
            return last_posix_error();
        }
        offset = std::min(static_cast<uint64_t>(hole), end);
        IVMM_TRY(copy_data(from, to, static_cast<uint64_t>(data), offset));
    }
    return {};
}

PosixResult<uint64_t> file_size(int fd) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) {
        return last_posix_error();
    }
    return static_cast<uint64_t>(status.st_size);
}

}  // namespace ivmm::storage
