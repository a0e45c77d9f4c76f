#pragma once

#include <string>

#include "base/result.h"
#include "vmm/snapshot/snapshot.h"

/// Whether a disk is still what a snapshot knows.
namespace ivmm {

/// The disk as it is now; `own`: whether it is a copy that is the snapshot's.
Result<SnapshotDisk> describe_disk(const std::string& path, bool own);

/// Refuses a file in the place of a snapshot's disk that cannot be what it was: of another size, or
/// changed at another time. The way out is the caller's to add.
Result<void> check_disk(const SnapshotDisk& disk, const std::string& path);

}  // namespace ivmm
