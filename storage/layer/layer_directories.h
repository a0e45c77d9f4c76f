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

/// Makes an empty layer under a hidden name, garbage until exchange_layer(): `manifest` is that of
/// the layer it is to replace. Gives the name. Nothing is synced for certain.
Result<std::string> make_replacement(const StoreDirs& store, const Manifest& manifest);
/// Puts a replacement, all of which is on the medium, in the place of a layer: after a crash, one
/// or the other is there. What was there has the hidden name then.
Result<void> exchange_layer(const StoreDirs& store, const std::string& name, uint32_t number);
/// Deletes what is at a hidden name, unless somebody has it open (Layer::retire()): then it is for
/// collect_garbage().
Result<void> delete_hidden(const StoreDirs& store, const std::string& name);

/// Takes layers, and the view files prepared for them, out of the store, in this order; those that
/// are not there are passed over. Deleting them takes longer: delete_discarded().
Result<void> discard_layers(const StoreDirs& store, const std::vector<uint32_t>& numbers);
Result<void> delete_discarded(const StoreDirs& store, const std::vector<uint32_t>& numbers);
/// The hidden name of a discarded layer.
std::string discarded_name(uint32_t number);

/// Deletes what no view needs. The caller has the store for itself. With damaged files in the
/// store, nothing is deleted.
Result<void> collect_garbage(const StoreDirs& store, const std::string& uuid);

}  // namespace ivmm::storage
