#pragma once

#include "memory/guest_memory.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// Says in words why a vCPU's last exit ends the guest. On the vCPU's thread.
Ending ending_of_exit(Vcpu& vcpu, const GuestMemory& memory);

}  // namespace ivmm
