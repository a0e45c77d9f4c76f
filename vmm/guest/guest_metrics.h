#pragma once

#include "vmm/control/metrics.h"
#include "vmm/fork/fork_report.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// What a guest's process counts: the guest, its standby, its forks (docs/metrics.md).
Metrics guest_metrics(const MachineStatus& machine, const StandbyStatus& standby);

}  // namespace ivmm
