#pragma once

#include "base/result.h"
#include "storage/flatten/merge_file.h"
#include "storage/flatten/run_tree.h"

namespace ivmm::storage {

/// Fills an empty layer so that it shows, over the layers below a run, exactly what the run does:
/// names, contents, attributes and inode numbers; links of the layers above stay good. Nothing is
/// synced, but block maps are flushed. All layers of `tree` must be sealed.
///
/// Of what the run's layers hide from each other nothing is left; files in which blocks of below
/// show are block files, those in which none does are ordinary ones.
///
/// Errors: which object cannot be merged, and why. What was made is of no use then.
Result<void> merge_run(const RunTree& tree, Layer& target, const GoOn& go_on);

}  // namespace ivmm::storage
