// Saving and restoring a vCPU. The order follows the dependencies between its parts.

#include <algorithm>

#include "vmm/kvm/ioctl.h"
#include "vmm/kvm/vcpu.h"

namespace ivmm {
namespace {

constexpr uint32_t kMsrTscDeadline = 0x6e0;

/// A saved vCPU holds no more than this; KVM's own lists are far shorter.
constexpr size_t kMaxMsrs = 1024;
constexpr size_t kMaxCpuidLeaves = 4096;

}  // namespace

size_t Vcpu::xsave_size() const {
    const int size = ::ioctl(vm_.fd(), KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    return std::max<size_t>(size > 0 ? static_cast<size_t>(size) : 0, sizeof(kvm_xsave));
}

Result<std::vector<kvm_msr_entry>> Vcpu::read_msrs() {
    if (msr_indices_.empty()) {
        IVMM_ASSIGN(msr_indices_, vm_.kvm().msr_indices());
    }
    while (true) {
        KvmList<kvm_msrs, kvm_msr_entry> list(msr_indices_.size());
        list->nmsrs = static_cast<uint32_t>(msr_indices_.size());
        for (size_t i = 0; i < msr_indices_.size(); ++i) {
            list.entries()[i].index = msr_indices_[i];
        }
        IVMM_ASSIGN(const int done, IVMM_IOCTL(fd(), KVM_GET_MSRS, list.get()));
        const auto count = static_cast<size_t>(done);
        if (count == msr_indices_.size()) {
            return std::vector<kvm_msr_entry>(list.entries(), list.entries() + count);
        }
        // KVM lists some registers that this vCPU's CPUID takes away again, and stops at the
        // first of them.
        msr_indices_.erase(msr_indices_.begin() + static_cast<ptrdiff_t>(count));
    }
}

std::optional<uint64_t> Vcpu::tsc_offset() const {
    uint64_t offset = 0;
    kvm_device_attr attribute{0, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET,
                              reinterpret_cast<uint64_t>(&offset)};
    return ::ioctl(fd(), KVM_GET_DEVICE_ATTR, &attribute) == 0 ? std::optional(offset)
                                                               : std::nullopt;
}

Result<void> Vcpu::set_tsc_offset(uint64_t offset) {
    kvm_device_attr attribute{0, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET,
                              reinterpret_cast<uint64_t>(&offset)};
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_DEVICE_ATTR, &attribute));
    return {};
}

Result<VcpuState> Vcpu::save() {
    VcpuState state;
    // Reading the MP state settles pending INIT and SIPI, which changes what follows.
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_MP_STATE, &state.mp_state));
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_REGS, &state.regs));
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_SREGS, &state.sregs));
    state.xsave.resize(xsave_size());
    if (state.xsave.size() > sizeof(kvm_xsave)) {
        IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_XSAVE2, state.xsave.data()));
    } else {
        IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_XSAVE, state.xsave.data()));
    }
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_XCRS, &state.xcrs));
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_DEBUGREGS, &state.debugregs));
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_LAPIC, &state.lapic));
    state.cpuid = cpuid_;
    IVMM_ASSIGN(state.msrs, read_msrs());
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_VCPU_EVENTS, &state.events));
    IVMM_ASSIGN(const int tsc_khz, IVMM_IOCTL(fd(), KVM_GET_TSC_KHZ, 0));
    state.tsc_khz = static_cast<uint32_t>(tsc_khz);
    state.tsc_offset = tsc_offset();
    return state;
}

Result<void> Vcpu::restore(const VcpuState& state, GuestTime time) {
    if (state.cpuid.size() > kMaxCpuidLeaves || state.msrs.size() > kMaxMsrs) {
        return fail("vCPU {}: {} CPUID leaves and {} MSRs are too many", id_, state.cpuid.size(),
                    state.msrs.size());
    }
    if (state.xsave.size() != xsave_size()) {
        return fail("vCPU {}: {} bytes of extended state, this host's KVM has {}", id_,
                    state.xsave.size(), xsave_size());
    }
    IVMM_ASSIGN(const int tsc_khz, IVMM_IOCTL(fd(), KVM_GET_TSC_KHZ, 0));
    if (static_cast<uint32_t>(tsc_khz) != state.tsc_khz) {
        IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_TSC_KHZ, state.tsc_khz));
    }
    IVMM_TRY(set_cpuid(state.cpuid));
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_MP_STATE, &state.mp_state));
    IVMM_TRY(set_regs(state.regs));
    IVMM_TRY(set_sregs(state.sregs));
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_XSAVE, state.xsave.data()));
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_XCRS, &state.xcrs));
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_DEBUGREGS, &state.debugregs));
    // After SREGS, which hold the APIC's base; before the MSRs, which hold its timer.
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_LAPIC, &state.lapic));
    // The deadline is compared with the TSC, so it comes when the TSC is set.
    auto msrs = state.msrs;
    const auto deadline = std::stable_partition(
        msrs.begin(), msrs.end(), [](const auto& msr) { return msr.index != kMsrTscDeadline; });
    IVMM_TRY(set_msrs({msrs.begin(), deadline}));
    if (time == GuestTime::kGoesOn && state.tsc_offset) {
        // The counter itself was saved a moment ago, and each vCPU's at another.
        IVMM_TRY(set_tsc_offset(*state.tsc_offset));
    }
    IVMM_TRY(set_msrs({deadline, msrs.end()}));
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_VCPU_EVENTS, &state.events));
    return {};
}

}  // namespace ivmm
