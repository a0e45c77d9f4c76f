#include "vmm/fork/local_target.h"

#include "base/log.h"
#include "vmm/config/size.h"
#include "vmm/fork/available_memory.h"

namespace ivmm {
namespace {

/// What a standby needs besides the replica, and what the host keeps for itself.
constexpr uint64_t kSpareMemory = uint64_t{64} << 20;

}  // namespace

Result<std::unique_ptr<Synchroniser>> start_synchroniser(Machine& machine, const char* what) {
    const uint64_t needed = machine.memory().resident_bytes() + kSpareMemory;
    if (const uint64_t available = available_memory(); available < needed) {
        return fail("{} needs about {} and the host has {} left: stop clones or other guests", what,
                    format_size(needed), format_size(available));
    }
    return Synchroniser::start(machine);
}

Result<std::unique_ptr<ForkTarget>> LocalTarget::create(Machine& machine,
                                                        const std::string& program) {
    IVMM_ASSIGN(auto synchroniser, start_synchroniser(machine, "a standby"));
    IVMM_ASSIGN(auto image, synchroniser->replica().open_for_reading());
    IVMM_ASSIGN(auto standby, Standby::launch(program, machine.config(), std::move(image)));
    // While its process builds the clone.
    IVMM_TRY(synchroniser->round());
    IVMM_TRY(standby->wait_ready());
    return std::unique_ptr<ForkTarget>(
        new LocalTarget(std::move(synchroniser), std::move(standby)));
}

Result<ForkTarget::Progress> LocalTarget::sync() {
    Progress progress;
    IVMM_ASSIGN(progress.round, synchroniser_->round());
    progress.replica_bytes = synchroniser_->replica().resident_bytes();
    return progress;
}

Result<void> LocalTarget::prepare(const ForkRequest& request) {
    spent_ = true;
    return standby_->prepare(request.clone, request.nets);
}

Result<ForkTarget::Started> LocalTarget::start(const MachineState& state,
                                               const std::vector<ForkedDisk>& disks) {
    Started started;
    std::vector<std::string> paths;
    for (const auto& disk : disks) {
        paths.push_back(disk.path);
        started.disks.push_back({disk.path, disk.method});
    }
    IVMM_ASSIGN(const auto running, standby_->start(state, std::move(paths)));
    started.pid = standby_->pid();
    started.first_run_ns = running.first_run_ns;
    started.private_bytes = running.private_bytes;
    // The clone has the image mapped, and keeps it; nobody is to change it any more.
    if (const auto sealed = synchroniser_->take_replica()->seal(); !sealed) {
        log::warning("{}", sealed.error().message);
    }
    return started;
}

std::optional<ForkTarget::Child> LocalTarget::take_child() {
    return Child{standby_->pid(), standby_->take_pidfd()};
}

}  // namespace ivmm
