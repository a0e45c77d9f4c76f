#pragma once

#include "vmm/kvm/kvm_abi.h"

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/kvm/host.h"

namespace ivmm {

/// /dev/kvm: what the host's KVM offers (KVM API documentation, section 4, "system ioctls").
/// Immutable after open(); any thread.
class Kvm {
 public:
    /// Fails with ErrorKind::kHost if there is no usable KVM, or if it lacks what ivmm needs.
    static Result<Kvm> open();

    int fd() const { return fd_.get(); }
    HostKind host_kind() const { return host_kind_; }
    /// KVM_GET_SUPPORTED_CPUID.
    const std::vector<kvm_cpuid_entry2>& supported_cpuid() const { return supported_cpuid_; }
    /// Bytes to map of each vCPU's kvm_run.
    size_t vcpu_map_size() const { return vcpu_map_size_; }
    bool tsc_deadline_timer() const { return tsc_deadline_timer_; }

    /// KVM_GET_MSR_INDEX_LIST: the registers that a saved vCPU may contain.
    Result<std::vector<uint32_t>> msr_indices() const;

 private:
    Kvm() = default;
    Result<void> load_supported_cpuid();

    UniqueFd fd_;
    HostKind host_kind_ = HostKind::kUnknown;
    std::vector<kvm_cpuid_entry2> supported_cpuid_;
    size_t vcpu_map_size_ = 0;
    bool tsc_deadline_timer_ = false;
};

/// A buffer for the KVM structs that end in a variable-length array.
template <class Header, class Entry>
class KvmList {
 public:
    explicit KvmList(size_t entries)
        : words_((sizeof(Header) + entries * sizeof(Entry) + sizeof(uint64_t) - 1) /
                 sizeof(uint64_t)) {}
    Header* get() { return reinterpret_cast<Header*>(words_.data()); }
    Header* operator->() { return get(); }
    Entry* entries() {
        return reinterpret_cast<Entry*>(reinterpret_cast<std::byte*>(words_.data()) +
                                        sizeof(Header));
    }

 private:
    std::vector<uint64_t> words_;
};

}  // namespace ivmm
