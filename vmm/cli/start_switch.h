#pragma once

#include <vector>

#include "vmm/config/guest_config.h"

namespace ivmm {

/// Starts the switches that a guest's networks name together with a TAP for their uplink, in a
/// process each, if they do not run; returns when they do. Such a switch ends by itself when nobody
/// has used it for a while. 0, or an exit code after an error, which has been printed.
int start_missing_switches(const std::vector<NetConfig>& nets);

}  // namespace ivmm
