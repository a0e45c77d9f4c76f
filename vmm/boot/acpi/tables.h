#pragma once

#include <cstdint>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace ivmm {

/// Writes the ACPI tables (ACPI 6.3, 5.2) of a hardware-reduced machine: RSDP, XSDT, FADT, MADT
/// and a DSDT with the processors, serial port, pvpanic and virtio-mmio devices of
/// vmm/boot/layout.h. Gives the RSDP's address. `cpus`: 1 to layout::kMaxCpus;
/// `virtio_devices`: up to layout::kMaxVirtioDevices.
Result<Gpa> write_acpi_tables(GuestMemory& memory, uint32_t cpus, uint32_t virtio_devices);

}  // namespace ivmm
