#pragma once

#include <cstdint>
#include <ctime>

namespace ivmm {

/// What a clock of the system shows, in nanoseconds: CLOCK_REALTIME since 1970, CLOCK_BOOTTIME and
/// CLOCK_MONOTONIC since some time before; the former goes on while the host sleeps. Any thread.
inline uint64_t clock_ns(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace ivmm
