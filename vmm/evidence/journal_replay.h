#pragma once

#include <string>

#include "base/result.h"

namespace ivmm::evidence {

/// Brings into the file system of an image what is only in its journal, as the next mount would
/// (e2fsck). An image without such a file system is left as it is. Errors: e2fsck is not installed
/// (kHost), or cannot do it.
Result<void> replay_journal(const std::string& image);

}  // namespace ivmm::evidence
