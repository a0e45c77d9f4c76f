#include "vmm/machine/device_set.h"

#include <fmt/ranges.h>

#include <array>

#include "devices/blk/virtio_blk.h"
#include "devices/console/virtio_console.h"
#include "devices/net/virtio_net.h"
#include "devices/platform/keyboard_controller.h"
#include "devices/platform/power.h"
#include "devices/platform/pvpanic.h"
#include "devices/rng/virtio_rng.h"
#include "devices/serial/serial.h"
#include "vmm/boot/cmdline.h"
#include "vmm/boot/layout.h"
#include "vmm/config/device_spec.h"

namespace ivmm {
MacAddress default_mac(std::string_view guest, size_t index) {
    // FNV-1a, which spreads short names well.
    uint64_t hash = 0xcbf29ce484222325;
    for (const char c : guest) {
        hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
    }
    MacAddress mac{0x52, 0x56};
    for (size_t i = 2; i < mac.size(); ++i) {
        mac[i] = static_cast<uint8_t>(hash >> (8 * i));
    }
    mac.back() = static_cast<uint8_t>(mac.back() + index);
    return mac;
}

Result<std::unique_ptr<DeviceSet>> DeviceSet::create(const GuestConfig& config, Vm& vm,
                                                     GuestMemory& memory, EventLoop& loop,
                                                     const Backends& backends,
                                                     ConsoleOutput& output,
                                                     const PlatformEventCallback& on_event) {
    auto set = std::unique_ptr<DeviceSet>(new DeviceSet(vm, memory, loop));
    IVMM_TRY(set->add_platform(output, on_event));
    for (const auto& disk : config.disks) {
        IVMM_TRY(set->add_disk(disk, backends, config.cpus));
    }
    for (const auto& net : config.nets) {
        IVMM_TRY(set->add_net(net, backends));
    }
    // Only where the guest makes it its console: a guest that finds two of them starts a login on
    // each, and both would talk on the same terminal.
    if (uses_virtio_console(config.cmdline)) {
        IVMM_TRY(set->add_console(output));
    }
    IVMM_TRY(set->add_virtio("rng0", "virtio-rng", "getrandom",
                             std::make_unique<virtio::VirtioRng>(memory)));
    return set;
}

Result<void> DeviceSet::add_platform(ConsoleOutput& output, const PlatformEventCallback& on_event) {
    IVMM_ASSIGN(auto interrupt, vm_.interrupt_line(layout::kSerialGsi));
    auto serial = std::make_unique<Serial>("serial0", *interrupt, output);
    interrupts_.push_back(std::move(interrupt));
    IVMM_TRY(ports_.add(layout::kSerialPort, Serial::kPortCount, *serial));
    console_input_ = serial.get();
    parts_.push_back(serial.get());
    status_.push_back({"serial0", "16550A", fmt::format("port {:#x}", layout::kSerialPort)});
    platform_.push_back(std::move(serial));

    const auto add = [&](auto device, uint16_t port) {
        auto added = ports_.add(port, device->kPortCount, *device);
        platform_.push_back(std::move(device));
        return added;
    };
    IVMM_TRY(add(std::make_unique<PowerControl>(on_event), layout::kPowerPorts));
    IVMM_TRY(add(std::make_unique<KeyboardController>(on_event), layout::kKeyboardPorts));
    IVMM_TRY(add(std::make_unique<PvPanic>(on_event), layout::kPvpanicPort));
    return {};
}

Result<void> DeviceSet::add_virtio(std::string name, std::string kind, std::string detail,
                                   std::unique_ptr<virtio::Device> device) {
    const auto index = virtio_count();
    if (index == layout::kMaxVirtioDevices) {
        return fail_as(ErrorKind::kUsage, "too many devices: a guest has at most {} virtio devices",
                       layout::kMaxVirtioDevices);
    }
    IVMM_ASSIGN(auto interrupt, vm_.interrupt_line(layout::virtio_gsi(index)));
    IVMM_ASSIGN(auto transport,
                virtio::MmioTransport::create(name, loop_, memory_, *interrupt, std::move(device)));
    interrupts_.push_back(std::move(interrupt));
    const Gpa window = layout::virtio_mmio(index);
    IVMM_TRY(mmio_.add(window, virtio::MmioTransport::kWindowSize, *transport));
    for (uint32_t queue = 0; queue < transport->queue_count(); ++queue) {
        IVMM_TRY(vm_.add_notify(window + virtio::MmioTransport::kQueueNotify, queue,
                                transport->notify_event(queue)));
    }
    parts_.push_back(transport.get());
    status_.push_back({std::move(name), std::move(kind), std::move(detail)});
    transports_.push_back(std::move(transport));
    return {};
}

Result<void> DeviceSet::add_disk(const DiskConfig& config, const Backends& backends,
                                 uint32_t queues) {
    IVMM_ASSIGN(auto disk, backends.disk(config));
    IVMM_ASSIGN(auto device,
                virtio::VirtioBlk::create(loop_, memory_, std::move(disk), config.serial,
                                          static_cast<uint16_t>(queues)));
    disks_.push_back(device.get());
    return add_virtio(fmt::format("blk{}", disks_.size() - 1), "virtio-blk", config.path,
                      std::move(device));
}

Result<void> DeviceSet::add_net(const NetConfig& config, const Backends& backends) {
    IVMM_ASSIGN(auto backend, backends.net(loop_, config));
    const MacAddress mac = config.mac.value();
    IVMM_ASSIGN(auto device, virtio::VirtioNet::create(loop_, memory_, std::move(backend), mac));
    return add_virtio(fmt::format("net{}", nets_++), "virtio-net",
                      fmt::format("{}, {:02x}", describe_cable(config), fmt::join(mac, ":")),
                      std::move(device));
}

Result<void> DeviceSet::add_console(ConsoleOutput& output) {
    IVMM_ASSIGN(auto console, virtio::VirtioConsole::create(loop_, memory_, output));
    console_input_ = console.get();
    return add_virtio("console0", "virtio-console", "the guest's console", std::move(console));
}

void DeviceSet::set_detail(std::string_view name, std::string detail) {
    for (auto& device : status_) {
        if (device.name == name) {
            device.detail = std::move(detail);
            return;
        }
    }
}

uint64_t DeviceSet::disk_written_bytes() const {
    uint64_t bytes = 0;
    for (const auto* const disk : disks_) {
        bytes += disk->written_bytes();
    }
    return bytes;
}

std::vector<DeviceSection> DeviceSet::save() const {
    std::vector<DeviceSection> sections;
    for (const auto* part : parts_) {
        sections.push_back({part->state_id(), part->save_state()});
    }
    return sections;
}

Result<void> DeviceSet::restore(const std::vector<DeviceSection>& sections) {
    if (sections.size() != parts_.size()) {
        return fail("the saved guest has {} devices, this one {}", sections.size(), parts_.size());
    }
    for (size_t i = 0; i < parts_.size(); ++i) {
        if (sections[i].id != parts_[i]->state_id()) {
            return fail("the saved guest has '{}' where this one has '{}'", sections[i].id,
                        parts_[i]->state_id());
        }
        if (auto restored = parts_[i]->restore_state(sections[i].bytes); !restored) {
            return annotate(std::move(restored).error(), sections[i].id);
        }
    }
    return {};
}

void DeviceSet::freeze() {
    for (auto* part : parts_) {
        part->freeze();
    }
}

void DeviceSet::thaw() {
    for (auto* part : parts_) {
        part->thaw();
    }
}

}  // namespace ivmm
