#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "storage/tools/reader.h"

namespace ivmm::storage {

enum class ImageFormat {
    kRaw,    ///< the bytes, with holes where the file has none
    kQcow2,  ///< needs qemu-img
};

struct ExportOptions {
    ImageFormat format = ImageFormat::kRaw;
    /// A raw image: the qcow2 image has only the clusters that are different from it, and refers to
    /// it by its absolute path. Empty: the image stands alone.
    std::string base;
    /// Called now and then, with the part of the work that is done, 0 to 1. False: stop.
    std::function<bool(double)> progress = [](double) { return true; };
};

/// Writes a regular file of a tree to `out`, which must not exist. It is written under another name
/// beside it, synced, and renamed when it is complete; after an error nothing is left. (A qcow2
/// image needs the space of the raw one besides, for as long as it takes.)
Result<void> export_file(const StoredTree& tree, const std::string& path, const std::string& out,
                         const ExportOptions& options);

}  // namespace ivmm::storage
