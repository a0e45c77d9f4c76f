#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "storage/layer/manifest.h"
#include "storage/layer/store_records.h"

/// The directories of a store and the small files in them, with errors that name the file.
namespace ivmm::storage {

struct StoreDirs {
    std::string path;
    UniqueFd root, layers, views, locks;
};

/// An errno about a file of a store.
Unexpected store_error(const StoreDirs& store, const std::string& file, Errno error);

Result<StoreRecord> read_store_record(const StoreDirs& store);
Result<ViewRecord> read_view_record(const StoreDirs& store, const std::string& name);
/// Checks that it is the manifest of this layer of this store.
Result<Manifest> read_manifest(const StoreDirs& store, const std::string& uuid, uint32_t number);
/// As that, from a directory that may be at another name.
Result<Manifest> read_manifest(const StoreDirs& store, const std::string& uuid, uint32_t number,
                               int directory);
/// Gives `count` numbers that no layer has had, in a row: the first. They are used up, even if the
/// caller makes no layers of them. Concurrent processes exclude each other.
Result<uint32_t> reserve_numbers(const StoreDirs& store, uint32_t count);

/// The hidden name under views/ of the file that makes a layer the top of a view when renamed.
std::string spare_view_name(uint32_t number);
/// The number that is a layer's name; none: it is not a layer's.
std::optional<uint32_t> layer_number(const std::string& name);

}  // namespace ivmm::storage
