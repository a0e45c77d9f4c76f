#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/layer/store_paths.h"

/// Making and deleting the directories layers/N of a store.
namespace ivmm::storage {

/// Makes empty layers over a parent (0: the lower branches), on the medium. Gives their numbers.
Result<std::vector<uint32_t>> make_layers(const StoreDirs& store, const std::string& uuid,
                                          uint32_t parent, uint32_t count);

/// Takes layers, and the view files prepared for them, out of the store, in this order; those that
/// are not there are passed over. Deleting them takes longer: delete_discarded().
Result<void> discard_layers(const StoreDirs& store, const std::vector<uint32_t>& numbers);
Result<void> delete_discarded(const StoreDirs& store, const std::vector<uint32_t>& numbers);

/// Deletes what no view needs. The caller has the store for itself. With damaged files in the
/// store, nothing is deleted.
Result<void> collect_garbage(const StoreDirs& store, const std::string& uuid);

}  // namespace ivmm::storage
