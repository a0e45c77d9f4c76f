#pragma once

#include <string>

namespace ivmm {

/// Now, for people and programs: "2026-01-31T12:00:00Z".
std::string utc_time();

}  // namespace ivmm
