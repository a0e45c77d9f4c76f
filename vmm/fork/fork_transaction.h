#pragma once

#include <functional>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "vmm/fork/disk_fork.h"
#include "vmm/fork/fork_report.h"
#include "vmm/fork/fork_target.h"
#include "vmm/fork/stopwatch.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// One fork of a machine: from the trigger to the clone's first instruction. On the thread of the
/// target; what has to do with the machine is done on the control loop.
///
/// An error before the instant of the fork leaves the primary as if nothing had happened. After it
/// the primary goes on as well, there is no clone, and the target may be spent. The message says
/// which step it was.
class ForkTransaction {
 public:
    ForkTransaction(Machine& machine, EventLoop& control, ForkTarget& target)
        : machine_(machine), control_(control), target_(target) {}

    /// `trigger`: since when somebody waits for the clone.
    Result<ForkReport> run(const ForkRequest& request, Stopwatch trigger);
    /// The machine at the instant of the fork.
    MachineState take_state() { return std::move(state_); }

 private:
    Result<void> prepare(const ForkRequest& request);
    Result<void> instant();
    Result<void> instant_while_paused();
    Result<void> begin_clone(const Stopwatch& trigger);

    Machine& machine_;
    EventLoop& control_;
    ForkTarget& target_;
    std::unique_ptr<DiskFork> disks_;
    MachineState state_;
    ForkReport report_;
};

}  // namespace ivmm
