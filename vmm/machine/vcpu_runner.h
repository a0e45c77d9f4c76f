#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "devices/bus.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// A vCPU and the thread that runs it.
///
/// The thread is stopped between two KVM_RUNs by parking it: an exit is always handled and
/// completed first, so a parked vCPU can be saved.
class VcpuRunner {
 public:
    /// `on_end` is called on the vCPU's thread when the guest cannot go on; the thread then waits
    /// for stop(). The buses and the memory must outlive the runner.
    VcpuRunner(std::unique_ptr<Vcpu> vcpu, const Bus& ports, const Bus& mmio,
               const GuestMemory& memory, std::function<void(Ending)> on_end);
    VcpuRunner(const VcpuRunner&) = delete;
    VcpuRunner& operator=(const VcpuRunner&) = delete;
    /// Stops and joins.
    ~VcpuRunner();

    /// The vCPU itself; only while it is parked or not started.
    Vcpu& vcpu() { return *vcpu_; }
    uint64_t exits() const { return exits_.load(std::memory_order_relaxed); }
    /// When it first ran: CLOCK_MONOTONIC, ns. After start(); waits for that moment.
    uint64_t first_run_ns() const {
        first_run_ns_.wait(0);
        return first_run_ns_;
    }

    /// Starts the thread.
    void start();
    /// Asks the thread to park, without waiting; wait_parked() waits.
    void park();
    void wait_parked();
    void resume();
    /// Asks the thread to end, without waiting. Any thread.
    void stop();

 private:
    enum class Wish { kRun, kPark, kStop };

    void run_loop();
    /// Parks for as long as that is wished; false when the thread is to end.
    bool obey();
    /// What is left after the guest has ended: parked until stop().
    void rest_until_stop();
    void handle_io(kvm_run& exit);
    void handle_mmio(kvm_run& exit);
    void demand(Wish wish);

    std::unique_ptr<Vcpu> vcpu_;
    const Bus& ports_;
    const Bus& mmio_;
    const GuestMemory& memory_;
    std::function<void(Ending)> on_end_;
    std::atomic<uint64_t> exits_ = 0;
    std::atomic<uint64_t> first_run_ns_ = 0;

    std::mutex mutex_;  // guards wish_, parked_ and thread_'s handle; nothing else is locked within
    std::condition_variable changed_;
    Wish wish_ = Wish::kRun;
    bool parked_ = true;

    std::thread thread_;
};

}  // namespace ivmm
