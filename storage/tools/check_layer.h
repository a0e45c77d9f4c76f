#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "storage/tools/check.h"
#include "storage/union/lookup.h"

namespace ivmm::storage {

/// What may be done with a layer that is checked.
struct LayerAccess {
    bool in_use = false;  ///< a process serves it: what is unfinished is not judged
    bool mend = false;    ///< nobody else uses it, and it is to be mended
};

/// Checks that a layer's directories are there. Whether it can be looked at further.
PosixResult<bool> check_layer_directories(int layers_dir, uint32_t number,
                                          const LayerAccess& access, CheckReport& report);

/// Checks what is in a layer's tree/, maps/, links/ and work/. `stack`: the layer, and all that is
/// below it unless `whole` says that some of it is missing; then what refers to it is not judged.
PosixResult<void> check_layer(StackSpan stack, bool whole, const LayerAccess& access,
                              CheckReport& report);

}  // namespace ivmm::storage
