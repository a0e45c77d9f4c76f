#pragma once

#include <cstdint>

namespace ivmm {

/// What this process alone has in memory and in swap, in bytes, without files that it has mapped.
uint64_t own_memory_bytes();

}  // namespace ivmm
