#pragma once

#include "vmm/kvm/kvm_abi.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/state_codec.h"
#include "base/unique_fd.h"
#include "vmm/kvm/vm.h"

namespace ivmm {

template <>
inline constexpr bool kStatePod<kvm_mp_state> = true;
template <>
inline constexpr bool kStatePod<kvm_regs> = true;
template <>
inline constexpr bool kStatePod<kvm_sregs> = true;
template <>
inline constexpr bool kStatePod<kvm_xcrs> = true;
template <>
inline constexpr bool kStatePod<kvm_debugregs> = true;
template <>
inline constexpr bool kStatePod<kvm_lapic_state> = true;
template <>
inline constexpr bool kStatePod<kvm_cpuid_entry2> = true;
template <>
inline constexpr bool kStatePod<kvm_msr_entry> = true;
template <>
inline constexpr bool kStatePod<kvm_vcpu_events> = true;

/// Everything that KVM knows of a vCPU.
struct VcpuState {
    static constexpr uint32_t kVersion = 1;
    kvm_mp_state mp_state{};
    kvm_regs regs{};
    kvm_sregs sregs{};
    std::vector<uint8_t> xsave;  ///< KVM_GET_XSAVE2
    kvm_xcrs xcrs{};
    kvm_debugregs debugregs{};
    kvm_lapic_state lapic{};
    std::vector<kvm_cpuid_entry2> cpuid;
    std::vector<kvm_msr_entry> msrs;
    kvm_vcpu_events events{};
    uint32_t tsc_khz = 0;
    std::optional<uint64_t> tsc_offset;  ///< KVM_VCPU_TSC_OFFSET, where KVM has it

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.mp_state, self.regs, self.sregs, self.xsave, self.xcrs, self.debugregs,
              self.lapic, self.cpuid, self.msrs, self.events, self.tsc_khz, self.tsc_offset);
    }
};

/// One virtual processor. run() belongs to one thread; everything else is called while that
/// thread is parked, except interrupt_run() and allow_run().
class Vcpu {
 public:
    static Result<std::unique_ptr<Vcpu>> create(Vm& vm, uint32_t id, uint32_t cpus);
    Vcpu(const Vcpu&) = delete;
    Vcpu& operator=(const Vcpu&) = delete;
    ~Vcpu();

    uint32_t id() const { return id_; }
    int fd() const { return fd_.get(); }
    const Vm& vm() const { return vm_; }

    /// Runs guest code until an exit; KVM_EXIT_INTR when it was interrupted, and then everything
    /// that the previous exit had left undone is done.
    Result<const kvm_run*> run();
    /// The data of the last exit, which the handler of an exit may change.
    kvm_run& exit() { return *run_; }

    /// Any thread: makes the next run() (or, with a signal to its thread, the current one) return
    /// KVM_EXIT_INTR, again and again until allow_run().
    void interrupt_run();
    void allow_run();

    Result<kvm_regs> regs() const;
    Result<void> set_regs(const kvm_regs& regs);
    Result<kvm_sregs> sregs() const;
    Result<void> set_sregs(const kvm_sregs& sregs);
    /// The guest's linear address as a physical one; nullopt if it is not mapped.
    std::optional<Gpa> translate(uint64_t linear) const;
    /// Tells the guest's kvmclock that the host has stopped it, so that its watchdogs keep calm.
    void notify_paused();

    Result<VcpuState> save();
    /// A refused restore leaves the vCPU unusable.
    Result<void> restore(const VcpuState& state, GuestTime time);

 private:
    Vcpu(Vm& vm, uint32_t id, UniqueFd fd, kvm_run* run)
        : vm_(vm), id_(id), fd_(std::move(fd)), run_(run) {}
    Result<void> set_cpuid(std::vector<kvm_cpuid_entry2> leaves);
    Result<void> set_msrs(const std::vector<kvm_msr_entry>& msrs);
    Result<std::vector<kvm_msr_entry>> read_msrs();
    size_t xsave_size() const;
    std::optional<uint64_t> tsc_offset() const;
    Result<void> set_tsc_offset(uint64_t offset);

    Vm& vm_;
    const uint32_t id_;
    UniqueFd fd_;
    kvm_run* run_;
    std::vector<kvm_cpuid_entry2> cpuid_;  // as set last
    std::vector<uint32_t> msr_indices_;    // those that this vCPU has; filled by the first save
};

}  // namespace ivmm
