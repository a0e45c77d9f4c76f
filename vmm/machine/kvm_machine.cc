#include "vmm/machine/kvm_machine.h"

#include <algorithm>

#include "base/log.h"
#include "vmm/boot/acpi/tables.h"
#include "vmm/boot/cmdline.h"
#include "vmm/boot/kernel_loader.h"
#include "vmm/boot/mptable.h"
#include "vmm/config/device_spec.h"

namespace ivmm {

Result<std::unique_ptr<KvmMachine>> KvmMachine::create(const GuestConfig& config,
                                                       ConsoleOutput& output) {
    IVMM_ASSIGN(auto memory, GuestMemory::create(config.memory_bytes));
    IVMM_ASSIGN(auto machine, build(config, std::move(memory), Backends::of_host(), output));
    IVMM_TRY(machine->load());
    return machine;
}

Result<std::unique_ptr<KvmMachine>> KvmMachine::create_empty(const GuestConfig& config,
                                                             std::unique_ptr<GuestMemory> memory,
                                                             const Backends& backends,
                                                             ConsoleOutput& output) {
    IVMM_ASSIGN(auto machine, build(config, std::move(memory), backends, output));
    machine->on_device_loop([&] { machine->devices_->freeze(); });
    return machine;
}

Result<std::unique_ptr<KvmMachine>> KvmMachine::build(const GuestConfig& config,
                                                      std::unique_ptr<GuestMemory> memory,
                                                      const Backends& backends,
                                                      ConsoleOutput& output) {
    IVMM_ASSIGN(auto kvm, Kvm::open());
    auto machine =
        std::unique_ptr<KvmMachine>(new KvmMachine(std::move(kvm), config, std::move(memory)));
    KvmMachine& self = *machine;
    for (size_t i = 0; i < config.nets.size(); ++i) {
        auto& net = self.config_.nets[i];
        net.mac = net.mac.value_or(default_mac(config.name, i));
        if (net.port.empty() && !net.switch_name.empty()) {
            net.port = default_port(config.name, i);
        }
    }
    IVMM_ASSIGN(self.vm_, Vm::create(self.kvm_, *self.memory_));
    IVMM_ASSIGN(self.device_loop_, LoopThread::start("devices"));

    Result<void> built;
    self.on_device_loop([&] {
        auto devices = DeviceSet::create(
            self.config_, *self.vm_, *self.memory_, self.device_loop(), backends, output,
            [&self](PlatformEvent event) { self.on_platform_event(event); });
        if (devices) {
            self.devices_ = *std::move(devices);
        } else {
            built = Unexpected{std::move(devices).error()};
        }
    });
    IVMM_TRY(std::move(built));

    for (uint32_t id = 0; id < config.cpus; ++id) {
        IVMM_ASSIGN(auto vcpu, Vcpu::create(*self.vm_, id, config.cpus));
        self.vcpus_.push_back(std::make_unique<VcpuRunner>(
            std::move(vcpu), self.devices_->ports(), self.devices_->mmio(), *self.memory_,
            [&self](const Ending& ending) { self.end(ending); }));
    }
    return machine;
}

Result<void> KvmMachine::load() {
    const GuestConfig& config = config_;
    const bool acpi = config.acpi && !disables_acpi(config.cmdline);
    IVMM_ASSIGN(command_line_, build_cmdline({.user = config.cmdline,
                                              .acpi = acpi,
                                              .virtio_devices = devices_->virtio_count(),
                                              .kvm_pvm = kvm_.host_kind() == HostKind::kKvmPvm}));
    KernelSpec kernel{
        .kernel = config.kernel, .initrd = config.initrd, .cmdline = command_line_, .rsdp = 0};
    if (acpi) {
        IVMM_ASSIGN(kernel.rsdp,
                    write_acpi_tables(*memory_, config.cpus, devices_->virtio_count()));
    }
    // Systems prefer ACPI, so the MP table may always be there for those that do not know it.
    IVMM_TRY(write_mptable(*memory_, config.cpus));
    IVMM_ASSIGN(const BootState boot, load_kernel(*memory_, kernel));
    if (boot.protocol == BootState::Protocol::kLinux64 && kvm_.host_kind() == HostKind::kKvmPvm) {
        log::warning(
            "this host (kvm_pvm) emulates the code of guest kernels: a compressed one takes long "
            "to unpack itself, and a distribution's then needs instructions that the host does "
            "not know; an uncompressed vmlinux made for it (guest-images/build kernel) boots");
    }

    Vcpu& first = vcpus_.front()->vcpu();
    IVMM_ASSIGN(auto regs, first.regs());
    IVMM_ASSIGN(auto sregs, first.sregs());
    boot.apply(regs, sregs);
    IVMM_TRY(first.set_sregs(sregs));
    return first.set_regs(regs);
}

KvmMachine::~KvmMachine() {
    vcpus_.clear();
    if (device_loop_) {
        device_loop_->loop().call([this] { devices_.reset(); });
    }
}

Result<MachineState> KvmMachine::save() {
    MachineState state;
    state.command_line = command_line_;
    // The devices first: what they have raised is then in the interrupt controllers' state.
    on_device_loop([&] { state.devices = devices_->save(); });
    IVMM_ASSIGN(state.vm, vm_->save());
    for (auto& vcpu : vcpus_) {
        IVMM_ASSIGN(auto saved, vcpu->vcpu().save());
        state.vcpus.push_back(std::move(saved));
    }
    return state;
}

Result<void> KvmMachine::restore(const MachineState& state, GuestTime time) {
    if (state.vcpus.size() != vcpus_.size()) {
        return fail("the saved guest has {} vCPUs, this one {}", state.vcpus.size(), vcpus_.size());
    }
    command_line_ = state.command_line;
    for (size_t i = 0; i < vcpus_.size(); ++i) {
        IVMM_TRY(vcpus_[i]->vcpu().restore(state.vcpus[i], time));
    }
    IVMM_TRY(vm_->restore(state.vm, time));
    Result<void> restored;
    on_device_loop([&] { restored = devices_->restore(state.devices); });
    return restored;
}

Result<void> KvmMachine::start(EndCallback on_end) {
    on_end_ = std::move(on_end);
    state_ = RunState::kRunning;
    on_device_loop([this] { devices_->thaw(); });
    for (auto& vcpu : vcpus_) {
        vcpu->start();
    }
    return {};
}

Result<void> KvmMachine::pause() {
    RunState expected = RunState::kRunning;
    if (!state_.compare_exchange_strong(expected, RunState::kPaused)) {
        return expected == RunState::kPaused ? Result<void>()
                                             : fail("the guest is not running any more");
    }
    // All are told before one is waited for, so that they stop at nearly the same time.
    for (auto& vcpu : vcpus_) {
        vcpu->park();
    }
    for (auto& vcpu : vcpus_) {
        vcpu->wait_parked();
    }
    device_loop_->loop().call([this] { devices_->freeze(); });
    return {};
}

Result<void> KvmMachine::resume() {
    if (state_ == RunState::kRunning) {
        return {};
    }
    if (state_ != RunState::kPaused) {
        return fail("the guest is not running any more");
    }
    device_loop_->loop().call([this] { devices_->thaw(); });
    for (auto& vcpu : vcpus_) {
        vcpu->vcpu().notify_paused();
        vcpu->resume();
    }
    // Unless the guest has ended meanwhile.
    RunState expected = RunState::kPaused;
    state_.compare_exchange_strong(expected, RunState::kRunning);
    return {};
}

void KvmMachine::stop() {
    end({Ending::Reason::kStopped, "stopped"});
}

void KvmMachine::end(const Ending& ending) {
    if (ended_.exchange(true)) {
        return;
    }
    state_ = RunState::kEnded;
    for (auto& vcpu : vcpus_) {
        vcpu->stop();
    }
    if (on_end_) {
        on_end_(ending);
    }
}

void KvmMachine::on_platform_event(PlatformEvent event) {
    switch (event) {
        case PlatformEvent::kPowerOff:
            return end({Ending::Reason::kPowerOff, "the guest has powered itself off"});
        case PlatformEvent::kReset:
            return end({Ending::Reason::kReset, "the guest has reset itself"});
        case PlatformEvent::kPanic:
            return end({Ending::Reason::kPanic, "the guest's kernel has panicked"});
    }
}

MachineStatus KvmMachine::status() {
    MachineStatus status;
    status.state = state_;
    status.memory_bytes = memory_->size();
    status.memory_resident_bytes = memory_->resident_bytes();
    status.memory_shared_bytes = memory_->shared_bytes();
    status.disk_written_bytes = disk_written_bytes();
    status.host_kind = host_kind_name(kvm_.host_kind());
    status.kernel_command_line = command_line_;
    for (const auto& vcpu : vcpus_) {
        status.vcpus.push_back({vcpu->exits()});
    }
    status.devices = devices_->status();
    return status;
}

}  // namespace ivmm
