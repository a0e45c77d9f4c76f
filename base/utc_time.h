#pragma once

#include <string>

namespace ivmm {

/// Now, for people and programs: "2026-01-31T12:00:00Z".
std::string utc_time();
/// With microseconds, for logs: "2026-01-31T12:00:00.000000Z".
std::string utc_time_us();

}  // namespace ivmm
