#pragma once

#include "net/switch.h"
#include "vmm/control/metrics.h"

namespace ivmm {

/// What a switch counts (docs/metrics.md). On the switch's thread.
Metrics switch_metrics(const net::Switch& net);

}  // namespace ivmm
