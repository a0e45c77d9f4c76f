#include "vmm/peer/clock_shift.h"

#include "base/clock.h"

namespace ivmm::peer {
namespace {

constexpr uint32_t kMsrTsc = 0x10;

}  // namespace

uint64_t age_of(const MachineState& state) {
    const uint64_t now = clock_ns(CLOCK_BOOTTIME);
    return now > state.vm.host_ns ? now - state.vm.host_ns : 0;
}

void move_to_this_host(MachineState& state, uint64_t age_ns) {
    const uint64_t now = clock_ns(CLOCK_BOOTTIME);
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
