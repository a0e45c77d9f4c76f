#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/layer/store.h"
#include "storage/union/lookup.h"

namespace ivmm::storage {

struct FlattenReport {
    std::string view;
    std::vector<Store::Run> merged;  ///< topmost first: that is the number they go by now
    std::vector<std::string> kept;   ///< which layers stay apart, and why
    uint64_t bytes_before = 0;       ///< on the disk, of what was merged
    uint64_t bytes_after = 0;
};

struct FlattenOptions {
    /// 0 to 1. False: give up.
    std::function<bool(double done)> progress = [](double) { return true; };
    /// Does Store::replace_run() for a run (topmost first), and puts the layer into the stacks of
    /// the views that this process serves. None: it serves none.
    std::function<Result<void>(const Store::Run& run, StackSpan layers,
                               Store::Replacement& replacement)>
        replace{};
};

/// Merges the frozen layers of a view's chain, wherever several in a row are needed by the same
/// views alone (Store::find_runs()), into one each. What the views show stays the same, and so do
/// files that are open. The branches, the view's top, and layers that are not sealed are left as
/// they are.
///
/// A run goes by the number of its uppermost layer then. The new layer is complete, on the medium
/// and sealed before it has that number; until then it is garbage to whoever opens the store.
/// Errors: what could not be merged, and why; the run in question is as it was.
Result<FlattenReport> flatten(Store& store, const std::string& view, const FlattenOptions& options);

}  // namespace ivmm::storage
