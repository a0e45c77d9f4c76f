#pragma once

#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "devices/blk/virtio_blk.h"
#include "devices/bus.h"
#include "devices/console_port.h"
#include "devices/platform/platform_event.h"
#include "devices/suspendable.h"
#include "devices/virtio/mmio_transport.h"
#include "memory/guest_memory.h"
#include "vmm/config/guest_config.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine/backends.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_state.h"

namespace ivmm {

/// The address of a guest's nth network device when the user gives none: locally administered,
/// the same at every start, another one for another guest.
MacAddress default_mac(std::string_view guest, size_t index);

/// All devices of a guest, at their places on the buses and with their interrupts.
///
/// Built and destroyed on the device loop's thread, or while that thread does not run.
class DeviceSet {
 public:
    /// `vm`, `memory`, `loop` and `output` must outlive the set; the network devices have their
    /// addresses. `on_event` is called on vCPU threads.
    static Result<std::unique_ptr<DeviceSet>> create(const GuestConfig& config, Vm& vm,
                                                     GuestMemory& memory, EventLoop& loop,
                                                     const Backends& backends,
                                                     ConsoleOutput& output,
                                                     const PlatformEventCallback& on_event);

    const Bus& ports() const { return ports_; }
    const Bus& mmio() const { return mmio_; }
    uint32_t virtio_count() const { return static_cast<uint32_t>(transports_.size()); }
    /// The console that the guest uses as its own: the virtio console if its command line has
    /// console=hvc0, else the serial port.
    ConsoleInput& console_input() { return *console_input_; }
    const std::vector<DeviceStatus>& status() const { return status_; }
    /// What the guest has had written. Any thread.
    uint64_t disk_written_bytes() const;
    /// Says what a device stands on now. Only while nobody asks for the status.
    void set_detail(std::string_view name, std::string detail);

    /// On the device loop, while no vCPU runs: freezes or thaws every device.
    void freeze();
    void thaw();
    /// Likewise, frozen. A set that has refused a state is of no use any more.
    std::vector<DeviceSection> save() const;
    Result<void> restore(const std::vector<DeviceSection>& sections);

 private:
    DeviceSet(Vm& vm, GuestMemory& memory, EventLoop& loop)
        : vm_(vm), memory_(memory), loop_(loop) {}
    Result<void> add_platform(ConsoleOutput& output, const PlatformEventCallback& on_event);
    Result<void> add_disk(const DiskConfig& config, const Backends& backends, uint32_t queues);
    Result<void> add_net(const NetConfig& config, const Backends& backends);
    Result<void> add_console(ConsoleOutput& output);
    Result<void> add_virtio(std::string name, std::string kind, std::string detail,
                            std::unique_ptr<virtio::Device> device);

    Vm& vm_;
    GuestMemory& memory_;
    EventLoop& loop_;
    Bus ports_;
    Bus mmio_;
    std::vector<std::unique_ptr<InterruptLine>> interrupts_;
    std::vector<std::unique_ptr<BusDevice>> platform_;
    std::vector<std::unique_ptr<virtio::MmioTransport>> transports_;
    std::vector<DeviceStatus> status_;
    std::vector<Suspendable*> parts_;
    ConsoleInput* console_input_ = nullptr;
    std::vector<const virtio::VirtioBlk*> disks_;
    uint32_t nets_ = 0;
};

}  // namespace ivmm
