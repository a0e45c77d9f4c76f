#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ivmm {

/// What whoever asks for a snapshot may choose. Paths are absolute.
struct SnapshotRequest {
    std::string folder;
    std::string base;   ///< folder of a snapshot; empty: none
    bool stop = false;  ///< the guest ends with it, and its disks are used as they are
};

/// What came of it. Times in microseconds.
struct SnapshotReport {
    struct Disk {
        std::string path;
        std::string method;  ///< as a fork's (docs/clone-disks.md); "kept": the guest's own disk
    };
    std::string folder;
    std::string disks_of;  ///< `ivmm rm` removes the snapshot's disks by this name; empty: none
    uint32_t rounds = 0;   ///< over the memory, before the pause
    double pause_us = 0;   ///< the guest stood still; with `stop`, up to when all was saved
    double stop_us = 0;    ///< of it: until no vCPU ran and no device worked
    double residual_copy_us = 0;
    double state_us = 0;
    double disk_fork_us = 0;
    uint64_t residual_pages = 0;  ///< copied in the pause
    uint64_t memory_bytes = 0;    ///< of the guest
    uint64_t written_bytes = 0;   ///< of memory, into the file
    std::vector<Disk> disks;
};

}  // namespace ivmm
