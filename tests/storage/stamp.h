#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// Contents that say what they are: every unit of a file carries the file's number, its own place
/// and a version, and a checksum over all of it.
namespace ivmm::test {

struct Stamp {
    uint64_t file = 0;
    uint64_t index = 0;
    uint64_t version = 0;  ///< 0: zeroes, which carry no more than that
    bool operator==(const Stamp&) const = default;
};

/// Appends a unit of `size` bytes.
void append_stamp(std::string& data, const Stamp& stamp, size_t size);
/// What a unit is, or nothing if it is something that was never written.
std::optional<Stamp> read_stamp(const char* unit, size_t size);

/// All units of a file; the last must be whole. Errors are put into `problem`.
std::vector<Stamp> read_stamps(int fd, size_t unit, std::string& problem);
std::vector<Stamp> read_stamps(const std::string& path, size_t unit, std::string& problem);

}  // namespace ivmm::test
