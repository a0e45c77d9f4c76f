#pragma once

#include <functional>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "vmm/fork/disk_fork.h"
#include "vmm/fork/fork_report.h"
#include "vmm/fork/fork_target.h"
#include "vmm/fork/net_fork.h"
#include "vmm/fork/sibling_clone.h"
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
    /// `program`: what the processes of more than one clone execute.
    ForkTransaction(Machine& machine, EventLoop& control, ForkTarget& target, std::string program)
        : machine_(machine), control_(control), target_(target), program_(std::move(program)) {}

    /// `trigger`: since when somebody waits for the clone.
    Result<ForkReport> run(const ForkRequest& request, Stopwatch trigger);
    /// After run(), once: the clones that are children of this process.
    std::vector<ForkTarget::Child> take_children() { return std::move(children_); }

 private:
    Result<void> prepare(const ForkRequest& request);
    Result<void> prepare_target(const ForkRequest& request);
    Result<void> launch_siblings(const ForkRequest& request);
    void fork_sibling_disks(const std::vector<ForkedDisk>& first);
    void start_siblings(const ForkRequest& request, const Stopwatch& trigger);
    Result<void> instant();
    Result<void> instant_while_paused();
    Result<void> begin_clone(const ForkRequest& request, const Stopwatch& trigger);

    Machine& machine_;
    EventLoop& control_;
    ForkTarget& target_;
    const std::string program_;
    std::unique_ptr<DiskFork> disks_;
    std::unique_ptr<NetFork> net_;  // null: no flow is diverted
    MachineState state_;
    ForkReport report_;
    std::vector<std::unique_ptr<SiblingClone>> siblings_;  // each with its place in report_
    std::vector<ForkTarget::Child> children_;
};

}  // namespace ivmm
