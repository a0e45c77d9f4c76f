#pragma once

#include <initializer_list>
#include <string>

namespace ivmm {

/// Lets standard descriptors lead to a file instead; to nowhere if it cannot be opened. `flags` as
/// for open(2).
void redirect(const std::string& path, int flags, std::initializer_list<int> descriptors);

}  // namespace ivmm
