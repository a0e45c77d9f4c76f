#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/state_codec.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"

namespace ivmm {

/// The saved state of one device.
struct DeviceSection {
    static constexpr uint32_t kVersion = 1;
    std::string id;  ///< Suspendable::state_id()
    std::vector<std::byte> bytes;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.id, self.bytes);
    }
};

/// Everything of a guest at an instant but its memory and the content of its disks.
struct MachineState {
    static constexpr uint32_t kVersion = 1;
    std::string command_line;  ///< the kernel's, as the guest got it
    VmState vm;
    std::vector<VcpuState> vcpus;
    std::vector<DeviceSection> devices;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.command_line, self.vm, self.vcpus, self.devices);
    }
};

}  // namespace ivmm
