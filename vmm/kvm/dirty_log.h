#pragma once

#include <memory>

#include "base/result.h"
#include "memory/page_set.h"
#include "vmm/kvm/vm.h"

namespace ivmm {

/// Which pages the vCPUs have written: KVM's bitmap with manual clearing (KVM API, 4.8, 4.117,
/// 7.18). At most one for a VM at a time. One thread at a time, while vCPUs run or not.
///
/// The host's own writes to guest memory are not in it.
class DirtyLog {
 public:
    /// Begins to log: every page counts as written until it was collected. The VM must outlive it.
    static Result<std::unique_ptr<DirtyLog>> start(Vm& vm);
    DirtyLog(const DirtyLog&) = delete;
    DirtyLog& operator=(const DirtyLog&) = delete;
    /// Ends logging.
    ~DirtyLog();

    /// Adds the pages that were written since they were collected last, and protects them again, so
    /// that a write after this call is in a later collection: copy the pages afterwards.
    Result<void> collect(PageSet& out);
    /// Adds them without protecting them again, which is quicker; they stay in the log. For a
    /// last look while no vCPU runs.
    Result<void> peek(PageSet& out);

 private:
    explicit DirtyLog(Vm& vm) : vm_(vm) {}
    Result<void> get(PageSet& out, bool clear);

    Vm& vm_;
};

}  // namespace ivmm
