#pragma once

#include <functional>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/config/guest_config.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// Machine::create, or what a test puts in its place.
using MachineFactory =
    std::function<Result<std::unique_ptr<Machine>>(const GuestConfig&, ConsoleOutput&)>;

/// Runs a guest with its control socket on this thread, until the guest ends. `owner` is a
/// connected socket to the client that the guest's life depends on until it sends `detach`.
/// SIGTERM, SIGINT and SIGHUP, which the caller has blocked, stop the guest.
///
/// Returns the exit code. Errors before the guest runs are printed on standard error; how it has
/// ended is told to the clients, and printed only when the owner is no more there.
int run_guest_process(const GuestConfig& config, UniqueFd owner, const MachineFactory& factory);

}  // namespace ivmm
