#pragma once

#include <asm/bootparam.h>

#include "memory/guest_memory.h"
#include "vmm/boot/boot_state.h"
#include "vmm/boot/image_file.h"
#include "vmm/boot/initrd.h"

namespace ivmm {

/// A bzImage whose compressed kernel lies in guest memory.
struct LoadedBzImage {
    Gpa start;         ///< of the protected-mode part
    Gpa end;           ///< the kernel needs all memory up to here before it reads any memory map
    Gpa initrd_limit;  ///< the initrd must end below
    uint64_t cmdline_limit;  ///< longest command line, without its terminating zero
    boot_params params;      ///< zero but for the setup header
};

/// Whether the file starts like a bzImage.
bool is_bzimage(const ImageFile& file);

/// Loads a bzImage that has the 64-bit entry point (Linux's Documentation/x86/boot.rst, protocol
/// 2.12 or later) to the address it prefers, so that it need not move itself.
Result<LoadedBzImage> load_bzimage(const ImageFile& file, GuestMemory& memory);

/// Writes the zero page, page tables and GDT. The command line is at layout::kCmdline already.
/// `rsdp`: 0 if there are no ACPI tables.
Result<BootState> prepare_linux64(GuestMemory& memory, const LoadedBzImage& kernel,
                                  uint64_t cmdline_size, const LoadedInitrd& initrd, Gpa rsdp);

}  // namespace ivmm
