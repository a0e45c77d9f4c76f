#pragma once

#include <string>

#include "base/result.h"
#include "vmm/evidence/bundle.h"
#include "vmm/evidence/collect.h"
#include "vmm/fork/clone_record.h"

namespace ivmm::evidence {

/// A disk of a clone: as it is to be shown, which nobody writes any more, and as it was.
struct DiskStates {
    CloneDisk now;
    CloneView view;           ///< in which `now` is; without a name: it is in none
    uint64_t fork_point = 0;  ///< the layer of its store that has it as it was; 0: none has
};

/// The states of a disk of the clone `record`; `now`: the same disk of the record that `now_record`
/// is, the clone's own or that of a snapshot of it.
DiskStates disk_states(const CloneRecord& record, const CloneRecord& now_record, size_t number);

/// The disk as an image (qcow2, by qemu-img), and where it is known what it was at the fork, that
/// as another, which the first has below it, and the list of files that have changed since then.
/// Gives that list.
Result<rpc::Json> add_disk(Bundle& bundle, size_t number, const DiskStates& states,
                           const OnProgress& progress);

}  // namespace ivmm::evidence
