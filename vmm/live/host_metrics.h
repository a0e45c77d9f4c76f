#pragma once

#include "vmm/control/metrics.h"
#include "vmm/live/running_processes.h"

namespace ivmm::live {

/// What all processes of this host count, each with a label that names it: guest="web",
/// switch="lan" and so on; and `ivmm_up`, which says of each whether it has answered
/// (docs/metrics.md).
Result<Metrics> host_metrics(RunningProcesses& processes);

}  // namespace ivmm::live
