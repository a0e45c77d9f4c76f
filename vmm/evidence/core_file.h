#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/machine/machine_state.h"

namespace ivmm::evidence {

/// Reads whole pages of a guest's memory, counted from the start of the memory file.
using ReadPages = std::function<Result<void>(uint64_t first, uint64_t count, ByteSpan out)>;

/// Writes a guest's memory as an ELF64 core (System V ABI, AMD64 supplement): a PT_LOAD for each
/// piece of RAM, with guest-physical addresses, an NT_PRSTATUS with the registers of each vCPU, and
/// the VMCOREINFO of a Linux that has one. Pages of zeroes are holes. `progress` is called with 0
/// to 1; false stops it. Errors: a file of the name is there; the disk is full; then what was
/// written of it is there.
Result<void> write_core(const std::string& path, uint64_t memory_bytes,
                        const std::vector<VcpuState>& vcpus, const ReadPages& read,
                        const std::function<bool(double)>& progress);

}  // namespace ivmm::evidence
