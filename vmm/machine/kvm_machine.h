#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "memory/guest_memory.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine/device_set.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/vcpu_runner.h"

namespace ivmm {

/// A guest on /dev/kvm. Here everything meets; nothing else knows all of it.
class KvmMachine final : public Machine {
 public:
    static Result<std::unique_ptr<KvmMachine>> create(const GuestConfig& config,
                                                      ConsoleOutput& output);
    ~KvmMachine() override;

    Result<void> start(EndCallback on_end) override;
    Result<void> pause() override;
    Result<void> resume() override;
    void stop() override;
    MachineStatus status() override;
    ConsoleInput& console_input() override { return devices_->console_input(); }

 private:
    explicit KvmMachine(Kvm kvm) : kvm_(std::move(kvm)) {}
    Result<void> build(const GuestConfig& config, ConsoleOutput& output);
    Result<void> load(const GuestConfig& config);
    /// Any thread; the first call decides how the guest has ended.
    void end(const Ending& ending);
    void on_platform_event(PlatformEvent event);

    // In the order in which they depend on each other.
    Kvm kvm_;
    std::unique_ptr<GuestMemory> memory_;
    std::unique_ptr<Vm> vm_;
    std::unique_ptr<LoopThread> device_loop_;
    std::unique_ptr<DeviceSet> devices_;
    std::vector<std::unique_ptr<VcpuRunner>> vcpus_;
    std::string command_line_;

    std::atomic<RunState> state_ = RunState::kCreated;
    std::atomic<bool> ended_ = false;
    EndCallback on_end_;
};

}  // namespace ivmm
