#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ivmm {

struct CmdlineSpec {
    std::string user;             ///< the user's part; its words win over ours
    bool acpi = true;             ///< the guest finds ACPI tables
    uint32_t virtio_devices = 0;  ///< at most layout::kMaxVirtioDevices
    bool kvm_pvm = false;         ///< the host is of the kvm_pvm kind
};

/// Whether the user has switched ACPI off in the kernel ("acpi=off").
bool disables_acpi(std::string_view user);

/// Whether the user has made the virtio console the guest's ("console=hvc0").
bool uses_virtio_console(std::string_view user);

/// The kernel command line: what a kernel needs to know of this machine and the user has not said,
/// then the user's part. kUsage if it is too long.
Result<std::string> build_cmdline(const CmdlineSpec& spec);

}  // namespace ivmm
