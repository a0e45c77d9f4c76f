#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "memory/guest_memory.h"

/// What is to be changed in the memory of a clone before its first instruction, as a hook prints it
/// (docs/forks.md): lines "memory OFFSET HEX". Offsets are those of the memory file: guest-physical
/// addresses below 3 GiB, and for what is above 4 GiB these less 1 GiB.
namespace ivmm {

struct MemoryChange {
    uint64_t offset = 0;
    std::vector<std::byte> bytes;
    bool operator==(const MemoryChange&) const = default;
};

/// Of at most so many bytes, a line.
inline constexpr size_t kMostChangedBytes = 4096;

std::string to_line(uint64_t offset, ConstByteSpan bytes);
/// Errors name the line.
Result<std::vector<MemoryChange>> parse_memory_changes(std::string_view text);
/// Errors: a place that is not in the memory; then what came before it was changed.
Result<void> apply(const std::vector<MemoryChange>& changes, GuestMemory& memory);

}  // namespace ivmm
