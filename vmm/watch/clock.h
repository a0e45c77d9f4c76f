#pragma once

#include "base/clock.h"

namespace ivmm::watch {

/// Milliseconds of a clock that only goes forward.
inline uint64_t monotonic_ms() {
    return clock_ns(CLOCK_MONOTONIC) / 1'000'000U;
}

}  // namespace ivmm::watch
