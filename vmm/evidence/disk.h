#pragma once

#include <string>

#include "base/result.h"
#include "vmm/evidence/bundle.h"
#include "vmm/evidence/collect.h"
#include "vmm/fork/clone_record.h"

namespace ivmm::evidence {

/// A disk of a clone on its way into a bundle: as it was at the fork, where that is known, and as
/// it is. Its calls in this order, on any thread.
class DiskExport {
 public:
    /// Disk `number` of the clone `record`; `bundle` must outlive this.
    DiskExport(Bundle& bundle, const CloneRecord& record, size_t number);

    /// The disk at the fork, as an image of its own.
    Result<void> add_past(const OnProgress& progress);
    /// The disk as the same one of `now` has it, the clone's own record or that of a snapshot of
    /// it, and as nobody writes it: an image of what has changed, or, if it is not known what it
    /// was, of all.
    Result<void> add_present(const CloneRecord& now, const OnProgress& progress);
    /// The list of the files that have changed since the fork. In a process of one thread.
    Result<rpc::Json> add_files();

    const std::string& name() const { return name_; }

 private:
    Result<void> read_state(const CloneView& view, const std::string& tree, const std::string& path,
                            const std::string& out, const OnProgress& progress) const;
    std::string past_image() const { return bundle_.scratch() + "/" + name_ + "-fork.raw"; }
    std::string present_image() const { return bundle_.scratch() + "/" + name_ + ".raw"; }

    Bundle& bundle_;
    const size_t number_;
    const std::string name_;
    const CloneDisk disk_;
    const CloneView view_;  // without a name: it is in none
    bool has_past_ = false;
    bool has_both_ = false;
};

}  // namespace ivmm::evidence
