#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "vmm/fork/disk_fork.h"
#include "vmm/fork/synchroniser.h"
#include "vmm/machine/machine.h"
#include "vmm/snapshot/memory_chain.h"
#include "vmm/snapshot/memory_file.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/snapshot/snapshot_folder.h"
#include "vmm/snapshot/snapshot_report.h"

namespace ivmm {

/// One snapshot of a machine into a folder. On the thread of the synchroniser; what has to do with
/// the machine is done on the control loop.
///
/// An error leaves nothing behind, and the guest goes on. The message says which step it was.
class SnapshotTransaction {
 public:
    SnapshotTransaction(Machine& machine, EventLoop& control, Synchroniser& synchroniser)
        : machine_(machine), control_(control), synchroniser_(synchroniser) {}

    /// With `stop`, the machine is paused on success, and to be ended by the caller. `progress` is
    /// asked from time to time while the memory is written.
    Result<SnapshotReport> run(const SnapshotRequest& request, const MemoryProgress& progress);

 private:
    Result<void> prepare(const SnapshotRequest& request);
    Result<void> take_instant(bool stop);
    Result<void> instant(bool stop);
    Result<void> instant_while_paused();
    Result<void> describe_disks();
    Result<void> write(const SnapshotRequest& request, const MemoryProgress& progress);
    Result<void> check_still_paused() const;

    Machine& machine_;
    EventLoop& control_;
    Synchroniser& synchroniser_;
    std::optional<SnapshotFolder> folder_;
    std::optional<MemoryChain> base_;
    std::optional<SnapshotBase> base_name_;
    std::unique_ptr<DiskFork> disks_;  // none: the disks are used as they are
    Snapshot snapshot_;
    SnapshotReport report_;
    bool was_running_ = false;
};

}  // namespace ivmm
