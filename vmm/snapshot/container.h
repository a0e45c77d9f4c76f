#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

/// A file of a few sections, each with a name and a checksum. Little-endian:
///
///     offset  length
///     0       8        "IVMMSNAP"
///     8       4        version of the format: kContainerVersion
///     12      4        number of sections, n
///     16      32 * n   for each: its name (16 bytes, padded with zeroes), its length in bytes (8),
///                      the XXH3-64 of its bytes (8)
///     …       8        XXH3-64 of everything before
///     …                the sections' bytes, one after the other, up to the end of the file
namespace ivmm {

inline constexpr uint32_t kContainerVersion = 1;
/// No file is larger, and none has more sections.
inline constexpr size_t kMaxContainerSize = size_t{64} << 20;
inline constexpr size_t kMaxSections = 16;
inline constexpr size_t kMaxSectionName = 16;

struct Section {
    std::string name;  ///< 1 to kMaxSectionName printable characters
    std::vector<std::byte> bytes;
    bool operator==(const Section&) const = default;
};

/// The names must be good and different.
std::vector<std::byte> encode_container(const std::vector<Section>& sections);

/// Any bytes are safe. Errors: no container, of a newer format, truncated, too long, a checksum
/// that does not match, names that are not good; they name the section.
Result<std::vector<Section>> decode_container(ConstByteSpan file);

/// The section of this name. Errors: there is none.
Result<const Section*> find_section(const std::vector<Section>& sections, const std::string& name);

}  // namespace ivmm
