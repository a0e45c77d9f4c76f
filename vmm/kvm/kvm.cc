#include "vmm/kvm/kvm.h"

#include <fcntl.h>

#include <array>

#include "vmm/kvm/ioctl.h"

namespace ivmm {
namespace {

struct Need {
    int capability;
    const char* name;
};

constexpr std::array kNeeds = {
    Need{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    Need{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    Need{KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    Need{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    Need{KVM_CAP_PIT2, "KVM_CAP_PIT2"},
    Need{KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2"},
    Need{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    Need{KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    Need{KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    Need{KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    Need{KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    Need{KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    Need{KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"},
    Need{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};

Unexpected no_kvm(int code) {
    const char* remedy = "";
    switch (code) {
        case ENOENT:
            remedy =
                ": this host offers no KVM; load kvm_intel or kvm_amd, or switch virtualisation "
                "on in the firmware";
            break;
        case EACCES:
        case EPERM:
            remedy = ": run as root, or join the group that owns /dev/kvm";
            break;
        default:
            break;
    }
    return {{ErrorKind::kHost, code,
             fmt::format("cannot open /dev/kvm: {}{}", error_text(code), remedy)}};
}

}  // namespace

Result<Kvm> Kvm::open() {
    Kvm kvm;
    kvm.fd_ = UniqueFd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm.fd_) {
        return no_kvm(errno);
    }
    const int version = ::ioctl(kvm.fd(), KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        return fail_as(ErrorKind::kHost, "/dev/kvm speaks version {} of the interface, not {}",
                       version, KVM_API_VERSION);
    }
    for (const auto& need : kNeeds) {
        if (::ioctl(kvm.fd(), KVM_CHECK_EXTENSION, need.capability) <= 0) {
            return fail_as(ErrorKind::kHost, "this host's KVM lacks {}, which ivmm needs",
                           need.name);
        }
    }
    kvm.host_kind_ = detect_host_kind();
    kvm.tsc_deadline_timer_ =
        ::ioctl(kvm.fd(), KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    IVMM_ASSIGN(const int map_size, IVMM_IOCTL(kvm.fd(), KVM_GET_VCPU_MMAP_SIZE, 0));
    kvm.vcpu_map_size_ = static_cast<size_t>(map_size);
    IVMM_TRY(kvm.load_supported_cpuid());
    return kvm;
}

Result<void> Kvm::load_supported_cpuid() {
    // KVM says E2BIG without saying how much it wants.
    for (uint32_t capacity = 128; capacity <= 4096; capacity *= 2) {
        KvmList<kvm_cpuid2, kvm_cpuid_entry2> list(capacity);
        list->nent = capacity;
        if (auto done = IVMM_IOCTL(fd(), KVM_GET_SUPPORTED_CPUID, list.get()); !done) {
            if (done.error().code == E2BIG) {
                continue;
            }
            return Unexpected{done.error()};
        }
        supported_cpuid_.assign(list.entries(), list.entries() + list->nent);
        return {};
    }
    return fail("KVM_GET_SUPPORTED_CPUID: more than 4096 entries");
}

Result<std::vector<uint32_t>> Kvm::msr_indices() const {
    kvm_msr_list probe{};
    // Fails with E2BIG and stores the number.
    if (::ioctl(fd(), KVM_GET_MSR_INDEX_LIST, &probe) < 0 && errno != E2BIG) {
        return fail_errno("KVM_GET_MSR_INDEX_LIST");
    }
    KvmList<kvm_msr_list, uint32_t> list(probe.nmsrs);
    list->nmsrs = probe.nmsrs;
    IVMM_TRY(IVMM_IOCTL(fd(), KVM_GET_MSR_INDEX_LIST, list.get()));
    return std::vector<uint32_t>(list.entries(), list.entries() + list->nmsrs);
}

}  // namespace ivmm
