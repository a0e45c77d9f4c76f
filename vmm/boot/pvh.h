#pragma once

#include <string_view>

#include "base/result.h"
#include "vmm/boot/boot_state.h"
#include "vmm/boot/initrd.h"

namespace ivmm {

/// Writes what a PVH kernel is handed (Xen's "x86/HVM direct boot ABI"): hvm_start_info version 1
/// with the memory map, and the initrd as its only module. The command line is at
/// layout::kCmdline already. `rsdp`: 0 if there are no ACPI tables.
Result<BootState> prepare_pvh(GuestMemory& memory, Gpa entry, const LoadedInitrd& initrd, Gpa rsdp);

}  // namespace ivmm
