#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace ivmm::storage {

struct AufsImportReport {
    uint64_t directories = 0;   ///< looked at
    uint64_t whiteouts = 0;     ///< .wh.NAME made overlayfs whiteouts
    uint64_t opaque = 0;        ///< directories made opaque
    uint64_t bookkeeping = 0;   ///< aufs's own files and directories deleted
    uint64_t pseudo_links = 0;  ///< of those: pseudo-links that `auplink` had not flushed
    uint64_t refused = 0;       ///< .wh. names that no aufs makes; left as they are
    std::vector<std::string> refused_paths;  ///< the first ones
};

/// Turns a branch that aufs has written into one that an overlayfs understands, in place:
/// `.wh.NAME` becomes a whiteout, `.wh..wh.opq` an opaque mark, aufs's bookkeeping goes. Nobody
/// else may use the directory meanwhile. May be stopped at any point and started again. Returns
/// when all is on the medium.
Result<AufsImportReport> import_aufs(const std::string& directory);

}  // namespace ivmm::storage
