#pragma once

#include "vmm/cli/guest_process.h"
#include "vmm/config/guest_config.h"

namespace ivmm {

/// Starts a process for the guest and is its console until the guest ends or the user detaches;
/// with `detach`, returns as soon as the guest runs. The configuration is valid; the process has
/// one thread. Returns the exit code; everything there is to say has been printed.
int run_guest(const GuestConfig& config, bool detach, const MachineFactory& factory);

}  // namespace ivmm
