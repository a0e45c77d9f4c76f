#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ivmm {

/// A number of bytes as people write it: digits and at most one of K, M, G, T (powers of 1024,
/// either case). Errors (kUsage): anything else, or more than 64 bits hold.
Result<uint64_t> parse_size(std::string_view text);

/// The shortest exact or nearly exact form: "256M", "1.5G", "700".
std::string format_size(uint64_t bytes);

}  // namespace ivmm
