#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/config/guest_config.h"
#include "vmm/fork/clone_claim.h"
#include "vmm/fork/clone_record.h"
#include "vmm/fork/disk_copy.h"
#include "vmm/fork/view_fork.h"

namespace ivmm {

/// What a clone gets in place of one of the primary's disks.
struct ForkedDisk {
    std::string path;    ///< for the clone's process
    std::string method;  ///< "overlay", "reflink", "copy", or "shared" (a read-only disk)
};

/// How long the disks kept the guest waiting, in microseconds.
struct DiskForkTimes {
    double commit_us = 0;         ///< commit() from beginning to end
    double overlay_pause_us = 0;  ///< of that, what the overlays stood still, added up
};

/// Forks all disks of a guest at one instant. Used by one thread at a time.
///
/// A disk on an overlay is forked with its view, one fork for each view whatever disks are in it.
/// Any other file is copied: by sharing its blocks, where its file system can do that, else byte by
/// byte while the guest stands still (the log says how many).
///
/// The clone cannot be removed by `ivmm rm` while this object lives: so it should, until the clone
/// runs.
class DiskFork {
 public:
    /// Finds out how each disk can be forked and does everything that can be done beforehand, while
    /// the guest runs. Waits for the disk. `primary` and `clone` are names of guests; paths are as
    /// the process that has the disks open sees them. `cause` is for the clone's record.
    ///
    /// Errors (nothing has happened): a clone of this name is there, a block device that is
    /// writable, a file where the copy should be, too little space for copies, an overlay whose
    /// server is not there or which has a view of the clone's name.
    static Result<std::unique_ptr<DiskFork>> prepare(const std::vector<DiskConfig>& disks,
                                                     const std::string& primary,
                                                     const std::string& clone,
                                                     const rpc::Json& cause = rpc::Json::object());
    /// Rolls back, unless finish() has succeeded.
    ~DiskFork();
    DiskFork(const DiskFork&) = delete;
    DiskFork& operator=(const DiskFork&) = delete;

    /// The instant: while the guest is paused and none of its requests is in flight. At most once.
    /// All disks or none: after an error there is no clone; roll_back() removes what was made of
    /// it and needs no pause.
    Result<void> commit();

    /// After commit(), when the guest may run again: mounts the clone's views and completes its
    /// record (clone_record.h). Gives one ForkedDisk for each disk, in their order. From then on
    /// the disks are the clone's, until `ivmm rm` or remove_clone_disks(). Waits for the disk.
    Result<std::vector<ForkedDisk>> finish();

    /// At any time: there will be no clone. Removes what was made for it, also after finish(); the
    /// clone's process must not use it any more. The primary's disks go on as they are. What
    /// cannot be removed is logged and left to `ivmm rm`. Waits for the disk.
    void roll_back();

    /// After commit().
    const DiskForkTimes& times() const { return times_; }

 private:
    explicit DiskFork(CloneClaim claim) : claim_(std::move(claim)) {}
    Result<void> add(const DiskConfig& disk);
    Result<void> add_to_overlay(const std::string& source, overlay::ServedFile file);
    Result<void> add_copy(const std::string& source);
    Result<void> check_space() const;
    Result<void> prepare_views();
    Result<void> commit_views();

    CloneClaim claim_;
    CloneRecord record_;
    std::vector<ViewFork> views_;
    std::vector<DiskCopy> copies_;
    DiskForkTimes times_;
    bool kept_ = false;  // nothing is to be rolled back
};

}  // namespace ivmm
