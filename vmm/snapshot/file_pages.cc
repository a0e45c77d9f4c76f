#include "vmm/snapshot/file_pages.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace ivmm {
namespace {

Result<void> read_all(int file, uint64_t at, ByteSpan out) {
    while (!out.empty()) {
        const ssize_t n = ::pread(file, out.data(), out.size(), static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno("cannot read");
        }
        if (n == 0) {
            return fail("the file has become shorter");
        }
        out = out.subspan(static_cast<size_t>(n));
        at += static_cast<uint64_t>(n);
    }
    return {};
}

}  // namespace

Result<void> read_pages(int file, uint64_t first, ByteSpan out) {
    const uint64_t end = first + out.size() / kPageSize;
    const auto part = [&](uint64_t from, uint64_t to) {
        return out.subspan((from - first) * kPageSize, (to - from) * kPageSize);
    };
    for (uint64_t at = first; at < end;) {
        const uint64_t data = next_data_page(file, at, end);
        const auto hole = part(at, data);
        std::memset(hole.data(), 0, hole.size());
        if (data == end) {
            break;
        }
        const off_t begin_of_hole = ::lseek(file, static_cast<off_t>(data * kPageSize), SEEK_HOLE);
        at = begin_of_hole < 0
                 ? end
                 : std::clamp((static_cast<uint64_t>(begin_of_hole) + kPageSize - 1) / kPageSize,
                              data + 1, end);
        IVMM_TRY(read_all(file, data * kPageSize, part(data, at)));
    }
    return {};
}

Result<void> write_pages(int file, uint64_t first, ConstByteSpan pages) {
    uint64_t at = first * kPageSize;
    while (!pages.empty()) {
        const ssize_t n = ::pwrite(file, pages.data(), pages.size(), static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return fail_errno("cannot write");
        }
        pages = pages.subspan(static_cast<size_t>(n));
        at += static_cast<uint64_t>(n);
    }
    return {};
}

uint64_t next_data_page(int file, uint64_t first, uint64_t end) {
    const off_t data = ::lseek(file, static_cast<off_t>(first * kPageSize), SEEK_DATA);
    if (data < 0) {
        // Nothing but a hole; or a file system that does not tell, or a file that is too short,
        // which shows when it is read.
        return errno == ENXIO ? end : first;
    }
    return std::clamp(static_cast<uint64_t>(data) / kPageSize, first, end);
}

bool is_zero_page(ConstByteSpan page) {
    // Compares each byte with the one before it, as fast as the C library does.
    return page.front() == std::byte{0} &&
           std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0;
}

}  // namespace ivmm
