#pragma once

#include <string>

namespace ivmm {

/// Somebody else's text as one that can be shown and logged: at most 1000 bytes, without control
/// characters.
std::string printable(std::string text);

}  // namespace ivmm
