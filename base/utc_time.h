#pragma once

#include <cstdint>
#include <string>

namespace ivmm {

/// Now, for people and programs: "2026-01-31T12:00:00Z".
std::string utc_time();
/// Likewise, so many seconds after 1970 began.
std::string utc_time(int64_t seconds);
/// With microseconds, for logs: "2026-01-31T12:00:00.000000Z".
std::string utc_time_us();
/// Likewise, so many microseconds after 1970 began.
std::string utc_time_us(int64_t microseconds);

}  // namespace ivmm
