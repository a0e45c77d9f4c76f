#include "vmm/fork/clone_backends.h"

#include <fmt/ranges.h>

#include "vmm/config/device_spec.h"

namespace ivmm {
namespace {

/// Requests in flight of a disk, as UringDisk has them.
constexpr size_t kDiskDepth = 128;

}  // namespace

Backends CloneBackends::backends() {
    const auto disk = [this](const DiskConfig& config) -> Result<std::unique_ptr<BlockBackend>> {
        if (config.read_only && !all_late_) {
            disks_.push_back(nullptr);
            return open_host_disk(config);
        }
        if (disks_.size() >= disk_sizes_.size()) {
            return fail("nobody has said how large disk {} is", config.path);
        }
        IVMM_ASSIGN(auto late,
                    LateDisk::create(disk_sizes_[disks_.size()], config.read_only, kDiskDepth));
        disks_.push_back(late.get());
        return std::unique_ptr<BlockBackend>(std::move(late));
    };
    const auto net = [this](EventLoop&, const NetConfig&) -> Result<std::unique_ptr<NetBackend>> {
        auto plug = std::make_unique<NetPlug>();
        nets_.push_back(plug.get());
        return std::unique_ptr<NetBackend>(std::move(plug));
    };
    return {.disk = disk, .net = net};
}

Result<void> CloneBackends::plug_nets(KvmMachine& machine, const std::vector<NetConfig>& nets) {
    if (nets.size() > nets_.size()) {
        return fail_as(ErrorKind::kUsage, "the guest has {} network devices, not {}", nets_.size(),
                       nets.size());
    }
    for (size_t i = 0; i < nets_.size(); ++i) {
        const bool connected = i < nets.size() && nets[i].has_cable();
        Result<void> plugged;
        if (connected) {
            machine.on_device_loop([&] {
                auto cable = open_host_net(machine.device_loop(), nets[i]);
                plugged = cable ? nets_[i]->plug(*std::move(cable))
                                : Result<void>(Unexpected{std::move(cable).error()});
            });
        }
        IVMM_TRY(std::move(plugged));
        machine.devices().set_detail(
            fmt::format("net{}", i),
            fmt::format("{}, {:02x}", describe_cable(connected ? nets[i] : NetConfig()),
                        fmt::join(machine.config().nets[i].mac.value_or(MacAddress{}), ":")));
    }
    return {};
}

Result<void> CloneBackends::plug_disks(KvmMachine& machine, const std::vector<std::string>& paths) {
    if (paths.size() != disks_.size()) {
        return fail("the guest has {} disks, not {}", disks_.size(), paths.size());
    }
    for (size_t i = 0; i < disks_.size(); ++i) {
        if (disks_[i] == nullptr) {
            continue;
        }
        Result<void> plugged;
        machine.on_device_loop([&] {
            auto disk = open_host_disk(
                {.path = paths[i], .read_only = disks_[i]->read_only(), .serial = {}});
            plugged = disk ? disks_[i]->plug(*std::move(disk))
                           : Result<void>(Unexpected{std::move(disk).error()});
        });
        IVMM_TRY(std::move(plugged));
        machine.devices().set_detail(fmt::format("blk{}", i), paths[i]);
    }
    return {};
}

}  // namespace ivmm
