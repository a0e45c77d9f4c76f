#include "vmm/boot/memory_map.h"

#include "vmm/boot/layout.h"

namespace ivmm {

std::vector<MemoryMapEntry> memory_map(const GuestMemory& memory) {
    using Type = MemoryMapEntry::Type;
    std::vector<MemoryMapEntry> map = {
        {0, layout::kReservedStart, Type::kRam},
        {layout::kReservedStart, layout::kKernelStart - layout::kReservedStart, Type::kReserved},
    };
    const RamRegion& low = memory.regions().front();  // at least 1 MiB, from 0
    if (low.size > layout::kKernelStart) {
        map.push_back({layout::kKernelStart, low.size - layout::kKernelStart, Type::kRam});
    }
    map.push_back({layout::kKvmIdentityMap, layout::kKvmPagesSize, Type::kReserved});
    for (size_t i = 1; i < memory.regions().size(); ++i) {
        map.push_back({memory.regions()[i].start, memory.regions()[i].size, Type::kRam});
    }
    return map;
}

}  // namespace ivmm
