#pragma once

#include <cstdint>

#include "base/result.h"

namespace ivmm::peer {

/// What a guest with so many vCPUs is told of its processor on this host. A guest can go on only
/// where it is the same. Errors: no /dev/kvm.
Result<uint64_t> cpu_fingerprint(uint32_t cpus);

}  // namespace ivmm::peer
