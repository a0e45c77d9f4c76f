#include "vmm/kvm/vm.h"

#include "base/clock.h"
#include "base/log.h"
#include "vmm/boot/layout.h"
#include "vmm/kvm/ioctl.h"

namespace ivmm {
namespace {

class IrqFdLine final : public InterruptLine {
 public:
    explicit IrqFdLine(EventFd event) : event_(std::move(event)) {}
    void trigger() noexcept override { event_.signal(); }

 private:
    EventFd event_;
};

Result<UniqueFd> create_vm(const Kvm& kvm) {
    IVMM_ASSIGN(const int fd, IVMM_IOCTL(kvm.fd(), KVM_CREATE_VM, 0));
    return UniqueFd(fd);
}

}  // namespace

Result<std::unique_ptr<Vm>> Vm::create(const Kvm& kvm, GuestMemory& memory) {
    IVMM_ASSIGN(auto fd, create_vm(kvm));
    auto vm = std::unique_ptr<Vm>(new Vm(kvm, memory, std::move(fd)));

    // Before the interrupt controllers: what KVM frees while it sets them up is freed by SRCU with
    // no hurry, and a change of the memory would have to wait for that, some milliseconds.
    IVMM_TRY(vm->set_memory_slots(0));

    // Where KVM keeps pages of its own; below the firmware's place, away from RAM and devices.
    uint64_t identity_map = layout::kKvmIdentityMap;
    IVMM_TRY(IVMM_IOCTL(vm->fd(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map));
    IVMM_TRY(IVMM_IOCTL(vm->fd(), KVM_SET_TSS_ADDR, layout::kKvmTss));
    IVMM_TRY(IVMM_IOCTL(vm->fd(), KVM_CREATE_IRQCHIP, 0));
    kvm_pit_config pit{};
    // The speaker's port is answered by KVM, so that reads of it cost no exit to us.
    pit.flags = KVM_PIT_SPEAKER_DUMMY;
    IVMM_TRY(IVMM_IOCTL(vm->fd(), KVM_CREATE_PIT2, &pit));
    return vm;
}

Result<void> Vm::set_memory_slots(uint32_t flags) {
    uint32_t slot = 0;
    for (const auto& region : memory_.regions()) {
        kvm_userspace_memory_region kvm_region{};
        kvm_region.slot = slot++;
        kvm_region.flags = flags;
        kvm_region.guest_phys_addr = region.start;
        kvm_region.memory_size = region.size;
        kvm_region.userspace_addr = memory_.host_address(region);
        IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_USER_MEMORY_REGION, &kvm_region));
    }
    return {};
}

Result<void> Vm::set_dirty_logging(bool on) {
    if (on) {
        kvm_enable_cap manual{};
        manual.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
        manual.args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
        IVMM_TRY(IVMM_IOCTL(fd(), KVM_ENABLE_CAP, &manual));
    }
    return set_memory_slots(on ? KVM_MEM_LOG_DIRTY_PAGES : 0);
}

Result<std::unique_ptr<InterruptLine>> Vm::interrupt_line(uint32_t gsi) {
    IVMM_ASSIGN(auto event, EventFd::create());
    kvm_irqfd irqfd{};
    irqfd.fd = static_cast<uint32_t>(event.fd());
    irqfd.gsi = gsi;
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_IRQFD, &irqfd));
    return std::unique_ptr<InterruptLine>(new IrqFdLine(std::move(event)));
}

Result<void> Vm::add_notify(Gpa address, uint32_t value, const EventFd& event) {
    kvm_ioeventfd notify{};
    notify.datamatch = value;
    notify.addr = address;
    notify.len = sizeof value;
    notify.fd = event.fd();
    notify.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_IOEVENTFD, &notify));
    return {};
}

Result<VmState> Vm::save() const {
    VmState state;
    for (uint32_t id = 0; id < state.irqchips.size(); ++id) {
        state.irqchips[id].chip_id = id;
        IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_IRQCHIP, &state.irqchips[id]));
    }
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_PIT2, &state.pit));
    kvm_clock_data clock{};
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_CLOCK, &clock));
    state.clock_ns = clock.clock;
    state.host_ns = clock_ns(CLOCK_BOOTTIME);
    return state;
}

Result<void> Vm::restore(const VmState& state, GuestTime time) {
    for (uint32_t id = 0; id < state.irqchips.size(); ++id) {
        if (state.irqchips[id].chip_id != id) {
            return fail("interrupt controller {} is saved in the place of {}",
                        state.irqchips[id].chip_id, id);
        }
    }
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_PIT2, &state.pit));
    kvm_clock_data clock{};
    clock.clock = state.clock_ns;
    if (const uint64_t now = clock_ns(CLOCK_BOOTTIME);
        time == GuestTime::kGoesOn && now > state.host_ns) {
        clock.clock += now - state.host_ns;
    }
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_CLOCK, &clock));
    // The slave PIC before its master: what is pending in the slave shows in the master, and
    // setting either of them looks at the other.
    for (size_t id = state.irqchips.size(); id-- > 0;) {
        IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_IRQCHIP, &state.irqchips[id]));
    }
    return {};
}

}  // namespace ivmm
