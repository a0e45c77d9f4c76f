#pragma once

namespace ivmm {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace ivmm
