#include "vmm/peer/cpu.h"

#include <xxhash.h>

#include "vmm/kvm/cpuid.h"

namespace ivmm::peer {

Result<uint64_t> cpu_fingerprint(uint32_t cpus) {
    IVMM_ASSIGN(const auto kvm, Kvm::open());
    const auto leaves = guest_cpuid(kvm, 0, cpus);
    return XXH3_64bits(leaves.data(), leaves.size() * sizeof leaves.front());
}

}  // namespace ivmm::peer
