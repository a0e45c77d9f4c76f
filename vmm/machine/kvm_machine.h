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
    /// A guest without a kernel, which is to go on from a saved state: restore(), then start().
    /// `memory` may get its content until start().
    static Result<std::unique_ptr<KvmMachine>> create_empty(const GuestConfig& config,
                                                            std::unique_ptr<GuestMemory> memory,
                                                            const Backends& backends,
                                                            ConsoleOutput& output);
    ~KvmMachine() override;

    /// Once, of a machine that create_empty() has made. Refuses a state that is not one of such a
    /// machine; the machine is then of no use any more.
    Result<void> restore(const MachineState& state, GuestTime time);
    /// Says what it is called and stands on since it was created; before start().
    void set_config(const GuestConfig& config) { config_ = config; }
    /// When its first vCPU first entered the guest: CLOCK_MONOTONIC, ns. After start(); waits for
    /// that moment.
    uint64_t first_run_ns() const { return vcpus_.front()->first_run_ns(); }
    /// Runs a task on the device loop, which alone may touch backends, and waits for it.
    void on_device_loop(const std::function<void()>& task) { device_loop_->loop().call(task); }
    EventLoop& device_loop() { return device_loop_->loop(); }
    DeviceSet& devices() { return *devices_; }

    Result<void> start(EndCallback on_end) override;
    Result<void> pause() override;
    Result<void> resume() override;
    void stop() override;
    Result<MachineState> save() override;
    GuestMemory& memory() override { return *memory_; }
    Result<std::unique_ptr<DirtyTracker>> track_dirty() override {
        return DirtyTracker::start(*vm_, *memory_);
    }
    const GuestConfig& config() const override { return config_; }
    RunState state() const override { return state_; }
    MachineStatus status() override;
    uint64_t disk_written_bytes() const override { return devices_->disk_written_bytes(); }
    ConsoleInput& console_input() override { return devices_->console_input(); }

 private:
    KvmMachine(Kvm kvm, GuestConfig config, std::unique_ptr<GuestMemory> memory)
        : kvm_(std::move(kvm)), config_(std::move(config)), memory_(std::move(memory)) {}
    static Result<std::unique_ptr<KvmMachine>> build(const GuestConfig& config,
                                                     std::unique_ptr<GuestMemory> memory,
                                                     const Backends& backends,
                                                     ConsoleOutput& output);
    Result<void> load();
    /// Any thread; the first call decides how the guest has ended.
    void end(const Ending& ending);
    void on_platform_event(PlatformEvent event);

    // In the order in which they depend on each other.
    Kvm kvm_;
    GuestConfig config_;
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
