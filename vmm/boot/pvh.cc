#include "vmm/boot/pvh.h"

#include <vector>

#include "vmm/boot/layout.h"
#include "vmm/boot/memory_map.h"

namespace ivmm {
namespace {

constexpr uint32_t kMagic = 0x336ec578;
constexpr uint32_t kVersion = 1;  // 1 adds the memory map

struct StartInfo {
    uint32_t magic = kMagic;
    uint32_t version = kVersion;
    uint32_t flags = 0;
    uint32_t module_count = 0;
    uint64_t modules = 0;
    uint64_t cmdline = layout::kCmdline;
    uint64_t rsdp = 0;
    uint64_t memory_map = 0;
    uint32_t memory_map_entries = 0;
    uint32_t reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct Module {
    uint64_t start;
    uint64_t size;
    uint64_t cmdline;
    uint64_t reserved;
};

struct MapEntry {
    uint64_t start;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
};

// All in the boot info page.
constexpr Gpa kModules = layout::kBootInfo + 0x80;
constexpr Gpa kMemoryMap = layout::kBootInfo + 0x100;

}  // namespace

Result<BootState> prepare_pvh(GuestMemory& memory, Gpa entry, const LoadedInitrd& initrd,
                              Gpa rsdp) {
    std::vector<MapEntry> map;
    for (const auto& range : memory_map(memory)) {
        map.push_back({range.start, range.size, static_cast<uint32_t>(range.type), 0});
    }
    StartInfo info;
    info.rsdp = rsdp;
    info.memory_map = kMemoryMap;
    info.memory_map_entries = static_cast<uint32_t>(map.size());
    bool ok = memory.write(kMemoryMap, std::as_bytes(std::span(map)));
    if (initrd.size > 0) {
        info.module_count = 1;
        info.modules = kModules;
        ok = ok && memory.write(kModules, Module{initrd.start, initrd.size, 0, 0});
    }
    if (!ok || !memory.write(layout::kBootInfo, info)) {
        return fail("the guest has no RAM at {:#x}", layout::kBootInfo);
    }
    return BootState{BootState::Protocol::kPvh, entry, layout::kBootInfo};
}

}  // namespace ivmm
