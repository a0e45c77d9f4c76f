#pragma once

#include <cstdint>

#include "memory/guest_memory.h"

/// Where everything lies in the guest: RAM that the VMM fills before the first vCPU runs, device
/// windows, I/O ports and interrupts. RAM itself is laid out in memory/guest_memory.h.
namespace ivmm::layout {

// --- RAM below 1 MiB: what the kernel is handed. It reads all of it before it takes the memory
// --- for itself, so nothing here but the EBDA and the ACPI tables needs a reservation.

/// The GDT of the 64-bit Linux boot protocol. The PC's BIOS data area ends at 0x500.
inline constexpr Gpa kBootGdt = 0x500;
/// One page: Linux's zero page (boot_params) or PVH's hvm_start_info with its lists.
inline constexpr Gpa kBootInfo = 0x7000;
/// One PML4, one PDPT and four page directories of the 64-bit Linux boot protocol. The page
/// at 0x8000 stays free: it is a usual place for the code that starts further vCPUs.
inline constexpr Gpa kPageTables = 0x9000;
/// The kernel command line and its terminating zero. Linux reads at most 2048 bytes of it.
inline constexpr Gpa kCmdline = 0x20000;
inline constexpr uint64_t kCmdlineSize = 2048;

/// The last KiB below 640 KiB, the extended BIOS data area of a PC: one of the places where the
/// MultiProcessor Specification (4) has systems look for the MP floating pointer.
inline constexpr Gpa kMpTable = 0x9fc00;
inline constexpr uint64_t kMpTableSize = 0x400;
/// From the EBDA up to 1 MiB a PC has its BIOS and video memory: reserved.
inline constexpr Gpa kReservedStart = kMpTable;

/// On a PC without UEFI systems look for the RSDP between 0xe0000 and 1 MiB (ACPI 6.3, 5.2.5.1);
/// the other tables follow it.
inline constexpr Gpa kRsdp = 0xe0000;
inline constexpr Gpa kAcpiTables = kRsdp + 0x40;
inline constexpr Gpa kAcpiTablesEnd = 0xf0000;

/// Kernels lie at or above 1 MiB; what is below belongs to the VMM until the guest runs.
inline constexpr Gpa kKernelStart = 0x100000;

// --- The hole between 3 and 4 GiB.

/// One page a virtio-mmio device.
inline constexpr Gpa kVirtioMmio = 0xd0000000;
inline constexpr uint64_t kVirtioMmioSize = 0x1000;
constexpr Gpa virtio_mmio(uint32_t index) {
    return kVirtioMmio + index * kVirtioMmioSize;
}

/// Where KVM's irqchip has them, as on every PC.
inline constexpr uint32_t kIoApic = 0xfec00000;
inline constexpr uint32_t kLocalApic = 0xfee00000;

/// For KVM_SET_IDENTITY_MAP_ADDR (one page) and KVM_SET_TSS_ADDR (three pages): some Intel
/// processors need them to run real mode. Out of everybody's way, below the BIOS of a PC.
inline constexpr Gpa kKvmIdentityMap = 0xfffbc000;
inline constexpr Gpa kKvmTss = kKvmIdentityMap + kPageSize;
inline constexpr uint64_t kKvmPagesSize = 4 * kPageSize;

// --- Interrupts. A GSI is the I/O APIC pin of the same number, which is KVM's default routing;
// --- ISA IRQs are not rerouted either (the PIT is pin 0). All are edge-triggered, active high.

inline constexpr uint32_t kIoApicPins = 24;
inline constexpr uint32_t kSerialGsi = 4;
/// The first pin that no PC device claims by convention.
inline constexpr uint32_t kFirstVirtioGsi = 5;
constexpr uint32_t virtio_gsi(uint32_t index) {
    return kFirstVirtioGsi + index;
}
inline constexpr uint32_t kMaxVirtioDevices = kIoApicPins - kFirstVirtioGsi;

inline constexpr uint32_t kMaxCpus = 8;
/// Local APIC ids are the vCPUs' numbers, 0 to 7; the I/O APIC's must be another one.
inline constexpr uint8_t kIoApicId = kMaxCpus;

// --- I/O ports.

inline constexpr uint16_t kSerialPort = 0x3f8;   ///< COM1
inline constexpr uint16_t kPvpanicPort = 0x505;  ///< where QEMU has it
/// The registers of PowerControl (devices/platform/power.h), on any free ports.
inline constexpr uint16_t kPowerPorts = 0x600;
/// The keyboard controller exists only for its reset line.
inline constexpr uint16_t kKeyboardPorts = 0x60;

}  // namespace ivmm::layout
