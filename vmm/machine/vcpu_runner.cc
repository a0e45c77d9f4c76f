#include "vmm/machine/vcpu_runner.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <utility>

#include "vmm/machine/exit_report.h"

namespace ivmm {
namespace {

/// Sent to a vCPU's thread to break KVM_RUN; its handler does nothing.
constexpr int kKickSignal = SIGUSR1;

void install_kick_handler() {
    static const bool installed = [] {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        return ::sigaction(kKickSignal, &action, nullptr) == 0;
    }();
    static_cast<void>(installed);
}

}  // namespace

VcpuRunner::VcpuRunner(std::unique_ptr<Vcpu> vcpu, const Bus& ports, const Bus& mmio,
                       const GuestMemory& memory, std::function<void(Ending)> on_end)
    : vcpu_(std::move(vcpu)),
      ports_(ports),
      mmio_(mmio),
      memory_(memory),
      on_end_(std::move(on_end)) {
    install_kick_handler();
}

VcpuRunner::~VcpuRunner() {
    stop();
    if (thread_.joinable()) {
        thread_.join();
    }
}

void VcpuRunner::start() {
    // Held until thread_ is set: the new thread may end the guest, and so call stop(), at once.
    const std::scoped_lock lock(mutex_);
    parked_ = false;
    thread_ = std::thread([this] {
        ::pthread_setname_np(::pthread_self(), fmt::format("vcpu{}", vcpu_->id()).c_str());
        run_loop();
    });
}

void VcpuRunner::park() {
    demand(Wish::kPark);
}

void VcpuRunner::wait_parked() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return parked_; });
}

void VcpuRunner::resume() {
    demand(Wish::kRun);
}

void VcpuRunner::stop() {
    demand(Wish::kStop);
}

void VcpuRunner::demand(Wish wish) {
    const std::scoped_lock lock(mutex_);
    if (wish_ == Wish::kStop) {
        return;
    }
    wish_ = wish;
    if (wish == Wish::kRun) {
        vcpu_->allow_run();
    } else {
        // In this order: either KVM_RUN sees the flag when it begins, or it is broken by the
        // signal.
        vcpu_->interrupt_run();
        if (thread_.joinable()) {
            ::pthread_kill(thread_.native_handle(), kKickSignal);
        }
    }
    changed_.notify_all();
}

bool VcpuRunner::obey() {
    std::unique_lock lock(mutex_);
    if (wish_ == Wish::kPark) {
        parked_ = true;
        changed_.notify_all();
        changed_.wait(lock, [this] { return wish_ != Wish::kPark; });
        parked_ = wish_ == Wish::kStop;
    }
    return wish_ != Wish::kStop;
}

void VcpuRunner::rest_until_stop() {
    std::unique_lock lock(mutex_);
    parked_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return wish_ == Wish::kStop; });
}

void VcpuRunner::run_loop() {
    first_run_ns_ = static_cast<uint64_t>(
        std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
    first_run_ns_.notify_all();
    while (true) {
        auto result = vcpu_->run();
        exits_.fetch_add(1, std::memory_order_relaxed);
        if (!result) {
            on_end_({Ending::Reason::kHostError, result.error().message});
            rest_until_stop();
            return;
        }
        kvm_run& exit = vcpu_->exit();
        switch (exit.exit_reason) {
            case KVM_EXIT_INTR:
                if (!obey()) {
                    rest_until_stop();
                    return;
                }
                break;
            case KVM_EXIT_IO:
                handle_io(exit);
                break;
            case KVM_EXIT_MMIO:
                handle_mmio(exit);
                break;
            default:
                on_end_(ending_of_exit(*vcpu_, memory_));
                rest_until_stop();
                return;
        }
    }
}

void VcpuRunner::handle_io(kvm_run& exit) {
    const auto& io = exit.io;
    auto* data = reinterpret_cast<std::byte*>(&exit) + io.data_offset;
    for (uint32_t i = 0; i < io.count; ++i, data += io.size) {
        if (io.direction == KVM_EXIT_IO_IN) {
            ports_.read(io.port, {data, io.size});
        } else {
            ports_.write(io.port, {data, io.size});
        }
    }
}

void VcpuRunner::handle_mmio(kvm_run& exit) {
    auto& mmio = exit.mmio;
    const auto data = std::as_writable_bytes(std::span(mmio.data)).first(mmio.len);
    if (mmio.is_write != 0) {
        mmio_.write(mmio.phys_addr, data);
    } else {
        mmio_.read(mmio.phys_addr, data);
    }
}

}  // namespace ivmm
