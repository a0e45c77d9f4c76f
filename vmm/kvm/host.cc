#include "vmm/kvm/host.h"

#include <unistd.h>

#include <array>
#include <utility>

namespace ivmm {
namespace {

struct Module {
    const char* path;
    HostKind kind;
};

constexpr std::array kModules = {
    Module{"/sys/module/kvm_pvm", HostKind::kKvmPvm},
    Module{"/sys/module/kvm_intel", HostKind::kKvmIntel},
    Module{"/sys/module/kvm_amd", HostKind::kKvmAmd},
};

}  // namespace

HostKind detect_host_kind() {
    for (const auto& module : kModules) {
        if (::access(module.path, F_OK) == 0) {
            return module.kind;
        }
    }
    return HostKind::kUnknown;
}

std::string_view host_kind_name(HostKind kind) {
    switch (kind) {
        case HostKind::kKvmIntel:
            return "kvm_intel";
        case HostKind::kKvmAmd:
            return "kvm_amd";
        case HostKind::kKvmPvm:
            return "kvm_pvm";
        case HostKind::kUnknown:
            break;
    }
    return "unknown";
}

}  // namespace ivmm
