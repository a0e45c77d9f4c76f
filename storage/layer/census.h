#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/layer/store_paths.h"

namespace ivmm::storage {

/// What layers and views a store has, as of one moment.
struct Census {
    std::map<std::string, uint32_t> views;  ///< the top of each
    std::map<uint32_t, Manifest> layers;
    /// Files that could not be read. What they would have said is unknown, so nothing may be
    /// deleted or written because of what the others do not say.
    std::vector<Error> damage;

    /// Looks at a store. Others may fork and remove views meanwhile.
    static Result<Census> take(const StoreDirs& store, const std::string& uuid);

    /// The layers that the views need, except for those that only the view `without` does.
    std::set<uint32_t> needed(const std::string& without = {}) const;
    /// From a top down to the lower branches. Errors: a layer is missing.
    Result<std::vector<uint32_t>> chain(uint32_t top) const;
    /// Those with this parent.
    std::vector<uint32_t> children(uint32_t parent) const;
    /// Whether a view may go on writing its top: no other view has it, or needs a child of it, or
    /// might.
    bool writable_by(const std::string& view) const;
};

}  // namespace ivmm::storage
