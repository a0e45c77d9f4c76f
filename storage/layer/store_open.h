#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/layer/layer.h"
#include "storage/layer/store_paths.h"

namespace ivmm::storage {

/// A store that is open: locked against garbage collection by others for as long as `dirs` lives.
struct OpenedStore {
    StoreDirs dirs;
    StoreRecord record;
    std::vector<std::shared_ptr<Layer>> lower;
};

/// As Store::open_or_create() and open().
Result<OpenedStore> open_store(const std::string& directory, const std::vector<std::string>& lower,
                               bool create);

}  // namespace ivmm::storage
