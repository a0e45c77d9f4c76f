#include "vmm/fork/fork_target.h"

namespace ivmm {

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
    return started;
}

}  // namespace ivmm
