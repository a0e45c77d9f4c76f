#pragma once

#include "vmm/live/running_processes.h"

namespace ivmm::live {

/// What runs on this host, for people who look at it: guests with their standbys and forks, clones,
/// switches with what they let through and what not, overlays, watches (docs/live-view.md).
///
/// Every member that is documented is there and of its type, whatever the processes have answered,
/// and every text is printable(): one of them may be in an attacker's hands.
Result<rpc::Json> host_state(RunningProcesses& processes);

}  // namespace ivmm::live
