#include "vmm/snapshot/restore.h"

#include <algorithm>
#include <utility>

#include "vmm/config/device_spec.h"
#include "vmm/config/validate.h"
#include "vmm/fork/disk_fork.h"
#include "vmm/machine/kvm_machine.h"
#include "vmm/snapshot/snapshot_disks.h"

namespace ivmm {

Result<Restoration> Restoration::open(const RestoreRequest& request) {
    IVMM_ASSIGN(auto snapshot, read_snapshot(request.folder));
    IVMM_ASSIGN(auto memory, MemoryChain::open(request.folder, snapshot));
    if (request.check) {
        IVMM_TRY(memory.check());
    }
    Restoration self(std::move(snapshot), std::move(memory));
    self.config_ = self.snapshot_.guest.config;
    self.config_.name = request.name.value_or(self.config_.name);
    if (request.nets) {
        IVMM_TRY(self.choose_nets(*request.nets));
    }
    IVMM_TRY(self.choose_disks(request.disks));
    IVMM_TRY(validate_saved(self.config_));
    return self;
}

Result<void> Restoration::choose_nets(const std::vector<NetConfig>& nets) {
    if (nets.size() > config_.nets.size()) {
        return fail_as(ErrorKind::kUsage, "the guest has {} network devices, not {}",
                       config_.nets.size(), nets.size());
    }
    for (size_t i = 0; i < config_.nets.size(); ++i) {
        auto& net = config_.nets[i];
        const auto mac = net.mac;
        net = i < nets.size() ? nets[i] : NetConfig();
        if (net.mac && mac && net.mac != mac) {
            return fail_as(ErrorKind::kUsage,
                           "net '{}': the guest knows the device as {}, and cannot get another "
                           "address while it runs; leave out mac=",
                           net.tap, format_mac(*mac));
        }
        net.mac = mac;
    }
    return {};
}

Result<void> Restoration::choose_disks(const std::vector<std::string>& paths) {
    const auto& saved = snapshot_.guest.disks;
    if (!paths.empty() && paths.size() != saved.size()) {
        return fail_as(ErrorKind::kUsage,
                       "the guest has {} disks; give --disk for each of them, not {}", saved.size(),
                       paths.size());
    }
    for (size_t i = 0; i < saved.size(); ++i) {
        auto& disk = config_.disks[i];
        disk.path = paths.empty() ? saved[i].path : paths[i];
        if (auto same = check_disk(saved[i], disk.path); !same) {
            return annotate(
                std::move(same).error(),
                fmt::format("the guest's memory and its disk {} do not belong together any more; "
                            "`--disk` takes a copy from then (`cp -p`, `ivmm overlay mount`)",
                            i));
        }
        forks_disks_ = forks_disks_ || (paths.empty() && saved[i].own && !disk.read_only);
    }
    return {};
}

Result<std::unique_ptr<Machine>> Restoration::make(ConsoleOutput& output) {
    std::unique_ptr<DiskFork> disks;
    if (forks_disks_) {
        // The snapshot's own are never written, so that it can be restored again.
        IVMM_ASSIGN(disks,
                    DiskFork::prepare(config_.disks, snapshot_.guest.config.name, config_.name));
        IVMM_TRY(disks->commit());
        IVMM_ASSIGN(const auto forked, disks->finish());
        for (size_t i = 0; i < forked.size(); ++i) {
            config_.disks[i].path = forked[i].path;
        }
    }
    auto machine = make_machine(output);
    if (!machine && disks) {
        disks->roll_back();
    }
    return machine;
}

Result<std::unique_ptr<Machine>> Restoration::make_machine(ConsoleOutput& output) const {
    IVMM_ASSIGN(auto memory, memory_.map());
    IVMM_ASSIGN(auto machine,
                KvmMachine::create_empty(config_, std::move(memory), Backends::of_host(), output));
    if (auto restored = machine->restore(snapshot_.machine, GuestTime::kStoodStill); !restored) {
        return annotate(std::move(restored).error(),
                        "the saved state cannot be restored on this host");
    }
    return std::unique_ptr<Machine>(std::move(machine));
}

}  // namespace ivmm
