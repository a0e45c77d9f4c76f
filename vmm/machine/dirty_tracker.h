#pragma once

#include <memory>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "memory/page_set.h"
#include "vmm/kvm/dirty_log.h"

namespace ivmm {

/// All pages that change: those that vCPUs write (KVM's log) and those that the VMM writes itself.
/// One tracker for a machine at a time; one thread at a time.
///
/// What it gives out it has forgotten: the caller keeps a page in its set until its copy counts.
class DirtyTracker {
 public:
    /// From now on; at first every page counts as written. Both must outlive the tracker.
    static Result<std::unique_ptr<DirtyTracker>> start(Vm& vm, GuestMemory& memory) {
        auto tracker = std::unique_ptr<DirtyTracker>(new DirtyTracker(memory));
        IVMM_ASSIGN(tracker->log_, DirtyLog::start(vm));
        return tracker;
    }

    /// Adds the pages that were written since the last call. Copy them afterwards: what is written
    /// after this call, even while it is being copied, is in the next collection.
    Result<void> collect(PageSet& out) {
        IVMM_TRY(log_->collect(out));
        memory_.vmm_dirty().collect(out);
        return {};
    }
    /// The same for a machine that is paused, as quickly as possible: a later collection gives the
    /// vCPUs' pages of this one again.
    Result<void> collect_paused(PageSet& out) {
        IVMM_TRY(log_->peek(out));
        memory_.vmm_dirty().collect(out);
        return {};
    }

 private:
    explicit DirtyTracker(GuestMemory& memory) : memory_(memory) {}

    GuestMemory& memory_;
    std::unique_ptr<DirtyLog> log_;
};

}  // namespace ivmm
