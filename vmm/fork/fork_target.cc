#include "vmm/fork/fork_target.h"

namespace ivmm {

PrepareMessage order_for(const ForkRequest& request, const std::string& primary) {
    PrepareMessage order;
    order.clone = request.clone;
    order.primary = primary;
    order.nets = request.nets;
    order.hook = request.hook;
    order.limits = request.limits;
    if (request.divert) {
        const auto remote = request.divert->selector.find("remote");
        if (remote != request.divert->selector.end() && remote->is_string()) {
            order.attacker = remote->get<std::string>();
        }
    }
    return order;
}

Result<ForkTarget::Started> start_on(Standby& standby, const MachineState& state,
                                     const std::vector<ForkedDisk>& disks) {
    ForkTarget::Started started;
    std::vector<std::string> paths;
    for (const auto& disk : disks) {
        paths.push_back(disk.path);
        started.disks.push_back({disk.path, disk.method});
    }
    IVMM_ASSIGN(const auto running, standby.start(state, std::move(paths)));
    started.pid = standby.pid();
    started.first_run_ns = running.first_run_ns;
    started.private_bytes = running.private_bytes;
    started.hook_us = running.hook_us;
    return started;
}

}  // namespace ivmm
