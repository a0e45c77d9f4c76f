#include "vmm/kvm/vcpu.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>

#include "vmm/kvm/cpuid.h"
#include "vmm/kvm/ioctl.h"

namespace ivmm {
namespace {

constexpr uint32_t kMsrMiscEnable = 0x1a0;
constexpr uint32_t kMsrMtrrDefType = 0x2ff;

constexpr uint64_t kFastStrings = 1;
constexpr uint64_t kMtrrEnabledWriteBack = (1 << 11) | 6;

}  // namespace

Result<std::unique_ptr<Vcpu>> Vcpu::create(Vm& vm, uint32_t id, uint32_t cpus) {
    IVMM_ASSIGN(const int raw_fd, IVMM_IOCTL(vm.fd(), KVM_CREATE_VCPU, id));
    UniqueFd fd(raw_fd);
    void* map =
        ::mmap(nullptr, vm.kvm().vcpu_map_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (map == MAP_FAILED) {
        return fail_errno("cannot map vCPU {}", id);
    }
    auto vcpu = std::unique_ptr<Vcpu>(new Vcpu(vm, id, std::move(fd), static_cast<kvm_run*>(map)));
    IVMM_TRY(vcpu->set_cpuid(guest_cpuid(vm.kvm(), id, cpus)));
    // What firmware would have left behind.
    IVMM_TRY(vcpu->set_msrs(
        {{kMsrMiscEnable, 0, kFastStrings}, {kMsrMtrrDefType, 0, kMtrrEnabledWriteBack}}));
    return vcpu;
}

Vcpu::~Vcpu() {
    ::munmap(run_, vm_.kvm().vcpu_map_size());
}

Result<const kvm_run*> Vcpu::run() {
    if (::ioctl(fd(), KVM_RUN, 0) == 0) {
        return run_;
    }
    if (errno == EINTR || errno == EAGAIN) {
        run_->exit_reason = KVM_EXIT_INTR;
        return run_;
    }
    return fail_errno("KVM_RUN of vCPU {}", id_);
}

void Vcpu::interrupt_run() {
    std::atomic_ref(run_->immediate_exit).store(1);
}

void Vcpu::allow_run() {
    std::atomic_ref(run_->immediate_exit).store(0);
}

Result<kvm_regs> Vcpu::regs() const {
    kvm_regs regs{};
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_REGS, &regs));
    return regs;
}

Result<void> Vcpu::set_regs(const kvm_regs& regs) {
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_REGS, &regs));
    return {};
}

Result<kvm_sregs> Vcpu::sregs() const {
    kvm_sregs sregs{};
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_SREGS, &sregs));
    return sregs;
}

Result<void> Vcpu::set_sregs(const kvm_sregs& sregs) {
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_SREGS, &sregs));
    return {};
}

std::optional<Gpa> Vcpu::translate(uint64_t linear) const {
    kvm_translation translation{};
    translation.linear_address = linear;
    if (::ioctl(fd(), KVM_TRANSLATE, &translation) != 0 || translation.valid == 0) {
        return std::nullopt;
    }
    return translation.physical_address;
}

void Vcpu::notify_paused() {
    // EINVAL from guests that do not use kvmclock.
    ::ioctl(fd(), KVM_KVMCLOCK_CTRL, 0);
}

Result<void> Vcpu::set_cpuid(std::vector<kvm_cpuid_entry2> leaves) {
    KvmList<kvm_cpuid2, kvm_cpuid_entry2> list(leaves.size());
    list->nent = static_cast<uint32_t>(leaves.size());
    std::copy(leaves.begin(), leaves.end(), list.entries());
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_SET_CPUID2, list.get()));
    cpuid_ = std::move(leaves);
    return {};
}

Result<void> Vcpu::set_msrs(const std::vector<kvm_msr_entry>& msrs) {
    KvmList<kvm_msrs, kvm_msr_entry> list(msrs.size());
    list->nmsrs = static_cast<uint32_t>(msrs.size());
    std::copy(msrs.begin(), msrs.end(), list.entries());
    IVMM_ASSIGN(const int done, IVMM_IOCTL(fd(), KVM_SET_MSRS, list.get()));
    const auto count = static_cast<size_t>(done);
    if (count != msrs.size()) {
        return fail("KVM_SET_MSRS: KVM refuses {:#x} in MSR {:#x}", uint64_t{msrs[count].data},
                    uint32_t{msrs[count].index});
    }
    return {};
}

}  // namespace ivmm
