#pragma once

#include <string>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/boot/boot_state.h"

namespace ivmm {

/// What the guest is to boot.
struct KernelSpec {
    std::string kernel;   ///< path of an ELF kernel with a PVH note, or of a bzImage
    std::string initrd;   ///< path; empty: none
    std::string cmdline;  ///< complete (vmm/boot/cmdline.h)
    Gpa rsdp = 0;         ///< of the ACPI tables; 0: none
};

/// Puts kernel, initrd, command line and boot information into guest memory. `memory` must be as
/// it was created. Whatever the files contain: an error (kUsage if they are at fault) or a guest
/// that may misbehave, and neither time nor memory beyond the files' size. Any thread.
Result<BootState> load_kernel(GuestMemory& memory, const KernelSpec& spec);

}  // namespace ivmm
