#pragma once

#include "base/unique_fd.h"

namespace ivmm {

/// What the process of a standby does: builds the clone over the image, waits for the fork, and is
/// from then on the clone's process. `channel`: its end of the connection to the primary's
/// process. Returns the exit code.
int run_standby_process(UniqueFd channel);

}  // namespace ivmm
