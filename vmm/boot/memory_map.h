#pragma once

#include <vector>

#include "memory/guest_memory.h"

namespace ivmm {

/// A range in the memory map that the guest is given. The numbers are those of E820 (ACPI 6.3,
/// 15.1), which PVH uses too.
struct MemoryMapEntry {
    enum class Type : uint32_t { kRam = 1, kReserved = 2 };
    Gpa start;
    uint64_t size;
    Type type;

    bool operator==(const MemoryMapEntry&) const = default;
};

/// What the guest may use as RAM and what it must keep its hands off; ascending, no overlaps.
std::vector<MemoryMapEntry> memory_map(const GuestMemory& memory);

}  // namespace ivmm
