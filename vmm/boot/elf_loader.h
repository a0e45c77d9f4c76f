#pragma once

#include "memory/guest_memory.h"
#include "vmm/boot/image_file.h"

namespace ivmm {

/// A kernel that lies in guest memory.
struct LoadedElf {
    Gpa entry;  ///< of XEN_ELFNOTE_PHYS32_ENTRY: where 32-bit execution starts
    Gpa end;    ///< the first address above all of its segments
};

/// Whether the file starts like an ELF file.
bool is_elf(const ImageFile& file);

/// Loads an x86-64 ELF kernel with a PVH entry note: each PT_LOAD segment is read to its physical
/// address, which must lie between 1 MiB and the end of low RAM. `memory` must be as it was
/// created: what a segment has no bytes for in the file is taken to be zero already.
Result<LoadedElf> load_elf(const ImageFile& file, GuestMemory& memory);

}  // namespace ivmm
