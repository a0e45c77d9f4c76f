#pragma once

#include <string>

#include "base/result.h"

/// What the keys of `ivmm top` do. Each returns what has been done, in one line.
namespace ivmm::live {

/// Pauses a guest that runs, resumes one that is paused.
Result<std::string> freeze_or_thaw(const std::string& guest);

/// Gives all that goes to a clone back to its primary.
Result<std::string> undivert_all(const std::string& clone);

}  // namespace ivmm::live
