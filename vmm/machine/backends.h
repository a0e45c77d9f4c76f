#pragma once

#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "devices/blk/block_backend.h"
#include "devices/net/net_backend.h"
#include "vmm/config/guest_config.h"

namespace ivmm {

/// What the devices of a guest stand on. Called on the device loop while the guest is built, once
/// for each disk and network device, in the order of the configuration.
struct Backends {
    std::function<Result<std::unique_ptr<BlockBackend>>(const DiskConfig&)> disk;
    std::function<Result<std::unique_ptr<NetBackend>>(EventLoop&, const NetConfig&)> net;

    /// The files, TAPs and switches that the configuration names.
    static Backends of_host();
};

Result<std::unique_ptr<BlockBackend>> open_host_disk(const DiskConfig& config);
/// Creates or attaches to the TAP, or connects to the switch; without either there is no cable.
Result<std::unique_ptr<NetBackend>> open_host_net(EventLoop& loop, const NetConfig& config);

}  // namespace ivmm
