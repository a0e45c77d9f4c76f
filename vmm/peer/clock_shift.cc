#include "vmm/peer/clock_shift.h"

#include <ctime>

namespace ivmm::peer {
namespace {

constexpr uint32_t kMsrTsc = 0x10;

/// The clock of VmState::host_ns.
uint64_t host_ns() {
    constexpr uint64_t kNsPerSecond = 1'000'000'000;
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

uint64_t age_of(const MachineState& state) {
    const uint64_t now = host_ns();
    return now > state.vm.host_ns ? now - state.vm.host_ns : 0;
}

void move_to_this_host(MachineState& state, uint64_t age_ns) {
    const uint64_t now = host_ns();
    state.vm.host_ns = now > age_ns ? now - age_ns : 0;
    for (auto& vcpu : state.vcpus) {
        // An offset to the other host's counter says nothing here; the counter's value does.
        vcpu.tsc_offset.reset();
        constexpr double kMsPerNs = 1e-6;
        const auto ticks =
            static_cast<uint64_t>(static_cast<double>(age_ns) * kMsPerNs * vcpu.tsc_khz);
        for (auto& msr : vcpu.msrs) {
            if (msr.index == kMsrTsc) {
                msr.data += ticks;
            }
        }
    }
}

}  // namespace ivmm::peer
