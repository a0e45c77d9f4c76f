#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/config/guest_config.h"
#include "vmm/fork/disk_fork.h"
#include "vmm/fork/fork_report.h"
#include "vmm/fork/fork_target.h"
#include "vmm/fork/standby.h"
#include "vmm/machine/machine_state.h"

namespace ivmm {

/// One more clone of a fork point, on this host: it shares the memory image with the first one, and
/// its disks begin as the first one's. One thread. Leaves nothing behind unless it was started.
class SiblingClone {
 public:
    /// Begins to build it, paused, over `image` (open for reading), without any cable. `program`:
    /// as for Standby. Errors: there is such a clone already, the process cannot be had.
    static Result<std::unique_ptr<SiblingClone>> launch(const std::string& program,
                                                        const GuestConfig& config, UniqueFd image,
                                                        const std::string& name);
    SiblingClone(const SiblingClone&) = delete;
    SiblingClone& operator=(const SiblingClone&) = delete;
    ~SiblingClone();

    /// After the fork and before the first clone, whose disks these are, runs. Waits for the disk.
    Result<void> fork_disks(const std::vector<ForkedDisk>& first);
    /// Waits until it is built, and lets it run, as `request` says of the first one, but without
    /// its cables. Errors: a guest has the name.
    Result<ForkTarget::Started> start(const ForkRequest& request, const MachineState& state);

    const std::string& name() const { return name_; }
    /// After start(), once.
    ForkTarget::Child take_child() { return {standby_->pid(), standby_->take_pidfd()}; }

 private:
    SiblingClone(const GuestConfig& config, std::string name)
        : config_(config), name_(std::move(name)) {}

    const GuestConfig& config_;
    std::string name_;
    std::unique_ptr<Standby> standby_;
    std::unique_ptr<DiskFork> disk_fork_;
    std::vector<ForkedDisk> disks_;
    bool started_ = false;
};

}  // namespace ivmm
