#include "vmm/fork/local_target.h"

#include <algorithm>

#include "base/log.h"
#include "vmm/config/size.h"
#include "vmm/fork/available_memory.h"

namespace ivmm {
namespace {

/// What a standby needs besides the replica, and what the host keeps for itself.
constexpr uint64_t kSpareMemory = uint64_t{64} << 20;

/// `present`: bytes of the copy that are there already.
Result<void> check_memory(Machine& machine, const char* what, uint64_t present) {
    const uint64_t whole = machine.memory().resident_bytes() + kSpareMemory;
    const uint64_t needed = whole - std::min(whole, present);
    if (const uint64_t available = available_memory(); available < needed) {
        return fail("{} needs about {} and the host has {} left: stop clones or other guests", what,
                    format_size(needed), format_size(available));
    }
    return {};
}

}  // namespace

Result<std::unique_ptr<Synchroniser>> start_synchroniser(Machine& machine, const char* what) {
    IVMM_TRY(check_memory(machine, what, 0));
    return Synchroniser::start(machine);
}

Result<std::unique_ptr<ForkTarget>> LocalTarget::create(Machine& machine,
                                                        const std::string& program) {
    std::unique_ptr<LocalTarget> target(new LocalTarget(machine, program));
    IVMM_ASSIGN(target->synchroniser_, start_synchroniser(machine, "a standby"));
    IVMM_TRY(target->launch());
    return std::unique_ptr<ForkTarget>(std::move(target));
}

Result<void> LocalTarget::launch() {
    IVMM_ASSIGN(auto image, synchroniser_->replica().open_for_reading());
    IVMM_ASSIGN(standby_, Standby::launch(program_, machine_.config(), std::move(image)));
    // While its process builds the clone.
    IVMM_TRY(synchroniser_->round());
    return standby_->wait_ready();
}

Result<bool> LocalTarget::renew() {
    standby_.reset();
    if (image_) {
        give_image_away();
        IVMM_TRY(synchroniser_->begin_anew());
    }
    IVMM_TRY(check_memory(machine_, "a standby", synchroniser_->replica().resident_bytes()));
    IVMM_TRY(launch());
    spent_ = false;
    return true;
}

void LocalTarget::give_image_away() {
    if (const auto image = std::move(image_)) {
        if (const auto sealed = image->seal(); !sealed) {
            log::warning("{}", sealed.error().message);
        }
    }
}

Result<ForkTarget::Progress> LocalTarget::sync() {
    Progress progress;
    IVMM_ASSIGN(progress.round, synchroniser_->round());
    progress.replica_bytes = synchroniser_->replica().resident_bytes();
    return progress;
}

Result<void> LocalTarget::prepare(const ForkRequest& request) {
    spent_ = true;
    return standby_->prepare(order_for(request, machine_.config().name));
}

Result<ForkTarget::Started> LocalTarget::start(const MachineState& state,
                                               const std::vector<ForkedDisk>& disks) {
    IVMM_ASSIGN(auto started, start_on(*standby_, state, disks));
    image_ = synchroniser_->take_replica();
    return started;
}

std::optional<ForkTarget::Child> LocalTarget::take_child() {
    return Child{standby_->pid(), standby_->take_pidfd()};
}

}  // namespace ivmm
