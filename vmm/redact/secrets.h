#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ivmm::redact {

/// What must not be read, and what is to be there instead, of the same length.
struct Secret {
    std::string bytes;
    std::string decoy;
    bool operator==(const Secret&) const = default;
};

inline constexpr size_t kLeastSecret = 6;    ///< bytes; a shorter one is found everywhere
inline constexpr size_t kMostSecret = 4096;  ///< bytes
inline constexpr size_t kMostSecrets = 1024;

/// Digits for digits, letters for letters of the same case, and the rest as it is; by chance.
std::string make_decoy(std::string_view secret);

/// One a line, with a decoy after a tab if wanted; empty lines do not count. Errors (kUsage) name
/// the line but never say what is in it. Longer secrets come first.
Result<std::vector<Secret>> parse_secrets(std::string_view text);
Result<std::vector<Secret>> load_secrets(const std::string& path);

}  // namespace ivmm::redact
