#include "tests/storage/stamp.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm::test {
namespace {

constexpr uint64_t kMagic = 0x5354414d50495600;

struct Header {
    uint64_t magic = kMagic;
    uint64_t checksum = 0;  ///< of the unit with this as zero
    Stamp stamp;
};

}  // namespace

void append_stamp(std::string& data, const Stamp& stamp, size_t size) {
    std::string unit(size, static_cast<char>('a' + stamp.version % 26));
    Header header;
    header.stamp = stamp;
    std::memcpy(unit.data(), &header, sizeof header);
    header.checksum = XXH3_64bits(unit.data(), unit.size());
    std::memcpy(unit.data(), &header, sizeof header);
    data += unit;
}

std::optional<Stamp> read_stamp(const char* unit, size_t size) {
    if (std::all_of(unit, unit + size, [](char byte) { return byte == 0; })) {
        return Stamp{};
    }
    std::string copy(unit, size);
    Header header;
    std::memcpy(&header, copy.data(), sizeof header);
    const uint64_t checksum = std::exchange(header.checksum, 0);
    std::memcpy(copy.data(), &header, sizeof header);
    if (header.magic != kMagic || checksum != XXH3_64bits(copy.data(), copy.size())) {
        return std::nullopt;
    }
    return header.stamp;
}

std::vector<Stamp> read_stamps(int fd, size_t unit, std::string& problem) {
    std::vector<Stamp> stamps;
    std::vector<char> buffer(64 * 4096);
    for (off_t offset = 0;;) {
        const ssize_t size = ::pread(fd, buffer.data(), buffer.size(), offset);
        if (size < 0) {
            problem = fmt::format("cannot be read at {}: {}", offset, error_text(errno));
        }
        if (size <= 0) {
            return stamps;
        }
        if (static_cast<size_t>(size) % unit != 0) {
            problem = fmt::format("ends in the middle of unit {}", stamps.size());
            return stamps;
        }
        for (size_t at = 0; at < static_cast<size_t>(size); at += unit) {
            const auto stamp = read_stamp(buffer.data() + at, unit);
            if (!stamp) {
                problem = fmt::format("has what was never written in unit {}", stamps.size());
            } else if (stamp->version != 0 && stamp->index != stamps.size()) {
                problem = fmt::format("has unit {} of file {} in unit {}", stamp->index,
                                      stamp->file, stamps.size());
            }
            stamps.push_back(stamp.value_or(Stamp{}));
        }
        offset += size;
    }
}

std::vector<Stamp> read_stamps(const std::string& path, size_t unit, std::string& problem) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        problem = "cannot be opened: " + error_text(errno);
        return {};
    }
    return read_stamps(fd.get(), unit, problem);
}

}  // namespace ivmm::test
