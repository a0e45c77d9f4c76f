#include "vmm/kvm/cpuid.h"

#include <asm/kvm_para.h>

#include <bit>

namespace ivmm {
namespace {

constexpr uint32_t bit(unsigned position) {
    return uint32_t{1} << position;
}

// Leaf 1, ECX.
constexpr uint32_t kX2Apic = bit(21);
constexpr uint32_t kTscDeadline = bit(24);
constexpr uint32_t kHypervisor = bit(31);
// Leaf 1, EDX.
constexpr uint32_t kHtt = bit(28);
// Leaves 0xb and 0x1f, ECX: the kind of level.
constexpr uint32_t kLevelSmt = 1;
constexpr uint32_t kLevelCore = 2;

/// Width of the part of an APIC id that tells the cores of a package apart.
uint32_t core_id_bits(uint32_t cpus) {
    return static_cast<uint32_t>(std::bit_width(cpus - 1));
}

void set_features(kvm_cpuid_entry2& leaf, const Kvm& kvm, uint32_t vcpu, uint32_t cpus) {
    leaf.ebx = (leaf.ebx & 0x0000ffff) | (cpus << 16) | (vcpu << 24);
    leaf.ecx |= kX2Apic | kHypervisor;
    leaf.ecx = kvm.tsc_deadline_timer() ? leaf.ecx | kTscDeadline : leaf.ecx & ~kTscDeadline;
    leaf.edx = cpus > 1 ? leaf.edx | kHtt : leaf.edx & ~kHtt;
}

/// Leaf 4: caches below the last level belong to one core, the last one to the package.
void set_cache_sharing(kvm_cpuid_entry2& leaf, uint32_t cpus) {
    const uint32_t type = leaf.eax & 0x1f;
    if (type == 0) {
        return;
    }
    const uint32_t level = (leaf.eax >> 5) & 0x7;
    const uint32_t ids = uint32_t{1} << core_id_bits(cpus);
    const uint32_t sharing = level >= 3 ? ids - 1 : 0;
    leaf.eax = (leaf.eax & 0x3fff) | (sharing << 14) | ((ids - 1) << 26);
}

/// Leaves 0xb and 0x1f: an SMT level of one thread, a core level of all vCPUs.
void set_topology_level(kvm_cpuid_entry2& leaf, uint32_t vcpu, uint32_t cpus) {
    leaf.eax = leaf.ebx = 0;
    leaf.ecx = leaf.index;
    leaf.edx = vcpu;
    if (leaf.index == 0) {
        leaf.ebx = 1;
        leaf.ecx |= kLevelSmt << 8;
    } else if (leaf.index == 1) {
        leaf.eax = core_id_bits(cpus);
        leaf.ebx = cpus;
        leaf.ecx |= kLevelCore << 8;
    }
}

void clear(kvm_cpuid_entry2& leaf) {
    leaf.eax = leaf.ebx = leaf.ecx = leaf.edx = 0;
}

}  // namespace

std::vector<kvm_cpuid_entry2> guest_cpuid(const Kvm& kvm, uint32_t vcpu, uint32_t cpus) {
    auto leaves = kvm.supported_cpuid();
    std::erase_if(leaves, [](const auto& leaf) {
        return (leaf.function == 0xb || leaf.function == 0x1f) && leaf.index > 2;
    });
    for (auto& leaf : leaves) {
        switch (leaf.function) {
            case 0x1:
                set_features(leaf, kvm, vcpu, cpus);
                break;
            case 0x4:
                set_cache_sharing(leaf, cpus);
                break;
            case 0x6:  // thermal and power: the host's business
            case 0xa:  // performance counters: not part of a saved vCPU
                clear(leaf);
                break;
            case 0xb:
            case 0x1f:
                set_topology_level(leaf, vcpu, cpus);
                break;
            case KVM_CPUID_FEATURES:
                // An asynchronous page fault in flight at a fork would have two owners.
                leaf.eax &= ~(bit(KVM_FEATURE_ASYNC_PF) | bit(KVM_FEATURE_ASYNC_PF_VMEXIT) |
                              bit(KVM_FEATURE_ASYNC_PF_INT));
                break;
            case 0x80000008:  // AMD: number of cores and the width of their ids
                leaf.ecx = (leaf.ecx & ~uint32_t{0xf0ff}) | (cpus - 1) | (core_id_bits(cpus) << 12);
                break;
            case 0x8000001e:  // AMD: extended APIC id
                leaf.eax = vcpu;
                leaf.ebx = vcpu;
                leaf.ecx = 0;
                break;
            default:
                break;
        }
    }
    return leaves;
}

}  // namespace ivmm
