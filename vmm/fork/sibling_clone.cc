#include "vmm/fork/sibling_clone.h"

#include <unistd.h>

#include "vmm/config/validate.h"
#include "vmm/fork/clone_record.h"

namespace ivmm {

Result<std::unique_ptr<SiblingClone>> SiblingClone::launch(const std::string& program,
                                                           const GuestConfig& config,
                                                           UniqueFd image,
                                                           const std::string& name) {
    IVMM_TRY(check_guest_name(name));
    // Its disks are forked too late to find that out.
    if (::access(clone_record_path(name).c_str(), F_OK) == 0) {
        return fail("there is a clone '{}' already; remove it with `ivmm rm {}`", name, name);
    }
    std::unique_ptr<SiblingClone> clone(new SiblingClone(config, name));
    IVMM_ASSIGN(clone->standby_, Standby::launch(program, config, std::move(image)));
    return clone;
}

Result<void> SiblingClone::fork_disks(const std::vector<ForkedDisk>& first) {
    std::vector<DiskConfig> sources = config_.disks;
    for (size_t i = 0; i < sources.size(); ++i) {
        sources[i].path = first[i].path;
    }
    IVMM_ASSIGN(disk_fork_, DiskFork::prepare(sources, config_.name, name_));
    IVMM_TRY(disk_fork_->commit());
    IVMM_ASSIGN(disks_, disk_fork_->finish());
    return {};
}

Result<ForkTarget::Started> SiblingClone::start(const ForkRequest& request,
                                                const MachineState& state) {
    IVMM_TRY(standby_->wait_ready());
    PrepareMessage order = order_for(request, config_.name);
    order.clone = name_;
    order.nets.clear();
    IVMM_TRY(standby_->prepare(order));
    IVMM_ASSIGN(auto started, start_on(*standby_, state, disks_));
    started_ = true;
    return started;
}

SiblingClone::~SiblingClone() {
    if (!started_) {
        standby_.reset();  // it may have the disks open
        if (disk_fork_) {
            disk_fork_->roll_back();
        }
    }
}

}  // namespace ivmm
