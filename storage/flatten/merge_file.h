#pragma once

#include <cstdint>
#include <functional>

#include "base/result.h"
#include "storage/flatten/run_tree.h"

namespace ivmm::storage {

/// Called now and then, with how many more bytes are done. False: give up (ECANCELED).
using GoOn = std::function<bool(uint64_t bytes)>;

/// Makes a regular file in a new layer with the content that one of a run's has: a part over what
/// is below the run if blocks of that show in it, else an ordinary file. Attributes and other marks
/// are not copied.
Result<void> merge_file(const RunTree& tree, const Place& from, Layer& target, At to,
                        const GoOn& go_on);

}  // namespace ivmm::storage
