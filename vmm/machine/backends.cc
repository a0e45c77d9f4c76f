#include "vmm/machine/backends.h"

#include "devices/blk/uring_disk.h"
#include "devices/net/net_plug.h"
#include "net/tap.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/net/switch_backend.h"
#include "vmm/net/tap_backend.h"

namespace ivmm {
namespace {

Result<Tap> open_tap(const NetConfig& config) {
    if (config.existing) {
        return Tap::attach(config.tap);
    }
    IVMM_ASSIGN(auto tap, Tap::create(config.tap));
    if (config.host_address) {
        IVMM_ASSIGN(const auto address, parse_host_address(*config.host_address));
        IVMM_TRY(tap.set_host_address(address));
    }
    IVMM_TRY(tap.bring_up());
    return tap;
}

}  // namespace

Backends Backends::of_host() {
    return {.disk = open_host_disk, .net = open_host_net};
}

Result<std::unique_ptr<BlockBackend>> open_host_disk(const DiskConfig& config) {
    IVMM_ASSIGN(auto disk, UringDisk::open(config.path, config.read_only));
    return std::unique_ptr<BlockBackend>(std::move(disk));
}

Result<std::unique_ptr<NetBackend>> open_host_net(EventLoop& loop, const NetConfig& config) {
    if (!config.switch_name.empty()) {
        const SwitchBackend::Place place{RuntimeDir::find_switch().cables_path(config.switch_name),
                                         config.port, config.mac.value_or(MacAddress{})};
        IVMM_ASSIGN(auto end, net::connect_cable(place.path, place.port, place.mac));
        IVMM_ASSIGN(auto backend, SwitchBackend::create(loop, std::move(end), place));
        return std::unique_ptr<NetBackend>(std::move(backend));
    }
    if (config.tap.empty()) {
        return std::unique_ptr<NetBackend>(std::make_unique<NetPlug>());
    }
    IVMM_ASSIGN(auto tap, open_tap(config));
    IVMM_ASSIGN(auto backend, TapBackend::create(loop, std::move(tap)));
    return std::unique_ptr<NetBackend>(std::move(backend));
}

}  // namespace ivmm
