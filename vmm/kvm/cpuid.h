#pragma once

#include "vmm/kvm/kvm_abi.h"

#include <cstdint>
#include <vector>

#include "vmm/kvm/kvm.h"

namespace ivmm {

/// The CPUID leaves for one vCPU: what KVM supports, minus what a forked guest cannot keep, with
/// the topology of one package of `cpus` single-threaded cores, whose x2APIC ids are 0, 1, ….
std::vector<kvm_cpuid_entry2> guest_cpuid(const Kvm& kvm, uint32_t vcpu, uint32_t cpus);

}  // namespace ivmm
