#pragma once

#include "base/result.h"
#include "vmm/fork/clone_record.h"

namespace ivmm {

/// Removes all that was made for a clone that does not run any more: unmounts and deletes its
/// views, deletes its copies of disks, its folder, and in the end its record. What is gone already
/// is passed over, so it can be called again after an error, and for what was half made. Waits for
/// the disk. Any thread.
///
/// Errors: something could not be removed; the rest is, and the record is still there. The clone is
/// being made by somebody at this moment.
///
/// `force`: views are unmounted although files in them are open.
Result<void> remove_clone_disks(const CloneRecord& record, bool force = false);

/// As remove_clone_disks(), for who has the clone's claim.
Result<void> remove_claimed_clone_disks(const CloneRecord& record, bool force);

}  // namespace ivmm
