#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"

namespace ivmm::storage {

/// Runs qemu-img and waits for it. `inherited`: a descriptor that it gets under the same number, or
/// -1. `progress` is called now and then, with 0 to 1 if it has `-p` among its arguments; false
/// ends it. Errors: what it said; that it is not installed (kHost).
Result<void> run_qemu_img(const std::vector<std::string>& arguments, int inherited,
                          const std::function<bool(double)>& progress);

}  // namespace ivmm::storage
