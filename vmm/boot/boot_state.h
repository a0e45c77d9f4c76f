#pragma once

#include "vmm/kvm/kvm_abi.h"

#include <cstdint>

#include "memory/guest_memory.h"

namespace ivmm {

/// How the first vCPU starts the kernel that was loaded.
struct BootState {
    enum class Protocol {
        kPvh,      ///< 32-bit protected mode, no paging; ebx: hvm_start_info
        kLinux64,  ///< long mode, the first 4 GiB identity-mapped; rsi: boot_params
    };
    Protocol protocol = Protocol::kPvh;
    Gpa entry = 0;      ///< of the first instruction
    Gpa boot_info = 0;  ///< hvm_start_info or boot_params

    /// Sets what the protocol prescribes; `sregs` holds what KVM_GET_SREGS has given for a new
    /// vCPU, and what the protocol is silent about (the local APIC's base) stays.
    void apply(kvm_regs& regs, kvm_sregs& sregs) const;
};

/// Writes the page tables and the GDT that apply() points to for kLinux64. False unless the
/// memory below 1 MiB is RAM.
[[nodiscard]] bool write_linux64_tables(GuestMemory& memory);

}  // namespace ivmm
