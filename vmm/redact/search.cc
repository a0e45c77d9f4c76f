#include "vmm/redact/search.h"

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace ivmm::redact {
namespace {

/// Stays in the cache while all secrets are looked for in it.
constexpr size_t kPiece = size_t{256} << 10;

/// Fills the buffer from an offset on, as far as the file goes.
Result<size_t> read_at(int fd, std::vector<char>& buffer, size_t size, uint64_t offset) {
    size_t done = 0;
    while (done < size) {
        const ssize_t n =
            ::pread(fd, buffer.data() + done, size - done, static_cast<off_t>(offset + done));
        if (n < 0 && errno != EINTR) {
            return fail_errno("cannot read at {}", offset + done);
        }
        if (n == 0) {
            break;
        }
        done += n > 0 ? static_cast<size_t>(n) : 0;
    }
    return done;
}

/// All matches that begin in the first `begin_before` bytes.
Result<void> search_piece(std::vector<char>& buffer, size_t size, size_t begin_before,
                          uint64_t offset, const std::vector<Secret>& secrets,
                          const OnMatch& on_match) {
    for (size_t i = 0; i < secrets.size(); ++i) {
        const auto& [bytes, decoy] = secrets[i];
        for (size_t at = 0; at < begin_before && at + bytes.size() <= size;) {
            const void* const found =
                ::memmem(buffer.data() + at, size - at, bytes.data(), bytes.size());
            if (found == nullptr) {
                break;
            }
            at = static_cast<size_t>(static_cast<const char*>(found) - buffer.data());
            if (at >= begin_before) {
                break;
            }
            IVMM_TRY(on_match(i, offset + at));
            std::memcpy(buffer.data() + at, decoy.data(), decoy.size());
            at += bytes.size();
        }
    }
    return {};
}

}  // namespace

Result<void> search(int fd, const std::vector<Secret>& secrets, const OnMatch& on_match) {
    size_t longest = 1;
    for (const auto& secret : secrets) {
        longest = std::max(longest, secret.bytes.size());
    }
    std::vector<char> buffer(kPiece + longest - 1);
    uint64_t begin = 0;
    while (true) {
        const off_t data = ::lseek(fd, static_cast<off_t>(begin), SEEK_DATA);
        if (data < 0 && errno == ENXIO) {
            return {};
        }
        // Where holes cannot be had, as of a block device, all is data.
        begin = data < 0 ? begin : std::max<uint64_t>(begin, static_cast<uint64_t>(data));
        const off_t hole = ::lseek(fd, static_cast<off_t>(begin), SEEK_HOLE);
        const uint64_t end = hole < 0 ? UINT64_MAX : static_cast<uint64_t>(hole);
        for (; begin < end; begin += kPiece) {
            IVMM_ASSIGN(const size_t size, read_at(fd, buffer, buffer.size(), begin));
            const size_t here = std::min<uint64_t>(kPiece, end - begin);
            IVMM_TRY(search_piece(buffer, size, here, begin, secrets, on_match));
            if (size < kPiece) {
                return {};
            }
        }
        begin = std::min(begin, end);
    }
}

}  // namespace ivmm::redact
