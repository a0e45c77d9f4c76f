#pragma once

#include <string_view>

namespace ivmm {

/// What runs guests on this host. Guest kernel code runs natively on the first two and is
/// emulated instruction by instruction on kKvmPvm.
enum class HostKind { kKvmIntel, kKvmAmd, kKvmPvm, kUnknown };

/// From the KVM modules that /sys/module lists.
HostKind detect_host_kind();
/// "kvm_intel", "kvm_amd", "kvm_pvm" or "unknown".
std::string_view host_kind_name(HostKind kind);

}  // namespace ivmm
