#pragma once

#include "vmm/kvm/kvm_abi.h"

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/state_codec.h"
#include "base/unique_fd.h"
#include "devices/interrupt_line.h"
#include "memory/guest_memory.h"
#include "vmm/kvm/kvm.h"

namespace ivmm {

template <>
inline constexpr bool kStatePod<kvm_irqchip> = true;
template <>
inline constexpr bool kStatePod<kvm_pit_state2> = true;

/// What of a VM is neither in a vCPU nor in a device of ours.
struct VmState {
    static constexpr uint32_t kVersion = 1;
    std::array<kvm_irqchip, 3> irqchips{};  ///< PIC master, PIC slave, IOAPIC
    kvm_pit_state2 pit{};
    uint64_t clock_ns = 0;  ///< KVM_GET_CLOCK: nanoseconds of kvmclock
    uint64_t host_ns = 0;   ///< the host's CLOCK_BOOTTIME when that was read

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.irqchips, self.pit, self.clock_ns, self.host_ns);
    }
};

/// What a guest's clocks show when its saved state goes on.
enum class GuestTime {
    kGoesOn,     ///< as if it had never been stopped; on the host it was saved on, since its boot
    kStoodStill  ///< what they showed when it was saved
};

/// A KVM virtual machine with in-kernel interrupt controllers and timer. Belongs to the process
/// that created it: its calls fail in a child.
class Vm {
 public:
    /// Creates the VM, its irqchip and PIT, and gives it `memory`, which must outlive it.
    static Result<std::unique_ptr<Vm>> create(const Kvm& kvm, GuestMemory& memory);

    int fd() const { return fd_.get(); }
    const Kvm& kvm() const { return *kvm_; }
    GuestMemory& memory() const { return memory_; }

    /// An edge-triggered interrupt input (KVM_IRQFD on a pin of the IOAPIC, and of the PIC below
    /// 16).
    Result<std::unique_ptr<InterruptLine>> interrupt_line(uint32_t gsi);
    /// Signals `event` when the guest writes `value` (32 bits) to `address`, without an exit to
    /// this process (KVM_IOEVENTFD).
    Result<void> add_notify(Gpa address, uint32_t value, const EventFd& event);

    /// Switches KVM's log of the pages that vCPUs write on or off, vCPUs running or not. While it
    /// is on, KVM maps the memory in pages of 4 KiB. For DirtyLog.
    Result<void> set_dirty_logging(bool on);

    /// While no vCPU runs. A refused restore leaves the VM unusable.
    Result<VmState> save() const;
    Result<void> restore(const VmState& state, GuestTime time);

 private:
    Vm(const Kvm& kvm, GuestMemory& memory, UniqueFd fd)
        : kvm_(&kvm), memory_(memory), fd_(std::move(fd)) {}
    Result<void> set_memory_slots(uint32_t flags);

    const Kvm* kvm_;
    GuestMemory& memory_;
    UniqueFd fd_;
};

}  // namespace ivmm
