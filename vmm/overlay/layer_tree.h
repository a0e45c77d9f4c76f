#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "storage/layer/manifest.h"
#include "storage/layer/store.h"

/// The layers of a store in the order in which people read a tree.
namespace ivmm::overlay {

struct LayerRow {
    uint32_t number = 0;
    uint32_t parent = 0;             ///< 0: the lower branches are below it
    std::string state;               ///< "open", "frozen" (not sealed yet), "sealed", "spare"
    std::vector<std::string> views;  ///< those that write it
    uint32_t indent = 0;             ///< grows where several layers have the same parent
};

/// Parents before their children. A layer whose parent is missing comes as if it had none.
std::vector<LayerRow> arrange_layers(const std::vector<storage::Manifest>& manifests,
                                     const std::vector<storage::Store::ViewInfo>& views);

}  // namespace ivmm::overlay
