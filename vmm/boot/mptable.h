#pragma once

#include <cstdint>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace ivmm {

/// Writes the MP floating pointer and configuration table (Intel MultiProcessor Specification
/// 1.4, 4) to layout::kMpTable, where kernels without ACPI find processors and interrupts.
/// `cpus`: 1 to layout::kMaxCpus.
Result<void> write_mptable(GuestMemory& memory, uint32_t cpus);

}  // namespace ivmm
