#pragma once

#include <string>
#include <vector>

#include "devices/blk/late_disk.h"
#include "devices/net/net_plug.h"
#include "vmm/machine/backends.h"
#include "vmm/machine/kvm_machine.h"

namespace ivmm {

/// The backends of a clone that waits for its fork: its disks do not exist yet, and nobody knows
/// its network. Read-only disks are those of the primary, where those can be had. Must outlive the
/// machine that is made with them. The thread that the machine is controlled from.
class CloneBackends {
 public:
    /// `disk_sizes`: bytes, of each disk of the configuration. `all_late`: read-only disks are not
    /// there yet either.
    CloneBackends(std::vector<uint64_t> disk_sizes, bool all_late)
        : disk_sizes_(std::move(disk_sizes)), all_late_(all_late) {}

    /// For the machine's creation; must not outlive this.
    Backends backends();

    /// Connects the first network devices of the machine; those without a TAP's name stay without
    /// a cable, as do the others.
    Result<void> plug_nets(KvmMachine& machine, const std::vector<NetConfig>& nets);
    /// Gives the machine its disks: a path for each disk of the configuration.
    Result<void> plug_disks(KvmMachine& machine, const std::vector<std::string>& paths);

 private:
    std::vector<uint64_t> disk_sizes_;
    bool all_late_;
    std::vector<LateDisk*> disks_;  // owned by the devices; null: a disk of the primary
    std::vector<NetPlug*> nets_;    // owned by the devices
};

}  // namespace ivmm
