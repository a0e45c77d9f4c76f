#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ivmm::overlay {

/// What is to be mounted, as `-o` says it. Paths as the user gave them.
struct MountSpec {
    std::vector<std::string> lower;  ///< topmost first
    std::string upper;               ///< empty: none
    std::string view = "main";
    bool read_only = false;
    uint32_t flatten_from = 0;  ///< layers; 0: never
};

/// Reads "lower=A:B,upper=U,view=NAME,flatten=N,ro". A backslash takes the special meaning from the
/// character behind it (",", ":", "\"). All errors are kUsage.
Result<MountSpec> parse_mount_spec(std::string_view text);

}  // namespace ivmm::overlay
