#pragma once

#include <chrono>
#include <cstdint>

namespace ivmm::watch {

/// Milliseconds of a clock that only goes forward.
inline uint64_t monotonic_ms() {
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                     std::chrono::steady_clock::now().time_since_epoch())
                                     .count());
}

}  // namespace ivmm::watch
