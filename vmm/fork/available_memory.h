#pragma once

#include <cstdint>

namespace ivmm {

/// Bytes that programs can have without the host swapping (proc(5), meminfo).
uint64_t available_memory();

}  // namespace ivmm
