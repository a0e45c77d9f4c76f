#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/config/guest_config.h"
#include "vmm/fork/clone_claim.h"
#include "vmm/fork/clone_record.h"
#include "vmm/fork/disk_fork.h"
#include "vmm/peer/messages.h"

namespace ivmm::peer {

/// A directory of primaries' hosts that this host can read as well, through a network file system
/// for example.
struct SharedFolder {
    std::string there;
    std::string here;  ///< absolute, without links
};
/// Where the disks of clones come from and go to.
struct DiskPlaces {
    std::string folder;  ///< for what is the clones' own; empty: no clone may have disks
    std::vector<SharedFolder> shared;
};

/// Where a path of a primary's host is to be found here; empty: nowhere. Never leaves the shared
/// folder, whatever links and dots are in the path.
std::string find_shared(const std::vector<SharedFolder>& shared, const std::string& path);

/// The disks of one clone of another host's guest: over the primary's, where they can be reached,
/// else received. One thread.
class DiskReceiving {
 public:
    /// Takes the clone's name among those that have disks, and begins its record. Errors: the name
    /// is taken.
    static Result<std::unique_ptr<DiskReceiving>> begin(const std::string& clone,
                                                        const std::string& primary,
                                                        const DiskPlaces& places);
    DiskReceiving(const DiskReceiving&) = delete;
    DiskReceiving& operator=(const DiskReceiving&) = delete;
    /// Removes all that was made, unless keep() was called.
    ~DiskReceiving();

    /// `disks` and their sizes are those of the guest's configuration. Errors: there is no place
    /// for what would have to be sent.
    Result<Wanted> take_offer(const Disks& offer, const std::vector<DiskConfig>& disks,
                              const std::vector<uint64_t>& sizes);
    Result<void> take_data(const DiskData& data, ConstByteSpan tail);
    /// When all was sent: one disk for each of the configuration.
    Result<std::vector<ForkedDisk>> finish();
    /// From now on they are the clone's, until `ivmm rm`.
    void keep() { kept_ = true; }

 private:
    struct Incoming {
        UniqueFd file;      // empty: this disk is not sent
        uint64_t size = 0;  // bytes, of the disk
        uint64_t left = 0;  // bytes that may still come
        bool done = false;
    };
    DiskReceiving(CloneClaim claim, const DiskPlaces& places)
        : claim_(std::move(claim)), places_(places) {}
    Result<void> use_shared(const std::string& path, bool read_only);
    Result<void> await(const std::string& source, uint64_t size, uint64_t data_bytes);

    CloneClaim claim_;
    const DiskPlaces& places_;
    CloneRecord record_;
    std::vector<Incoming> incoming_;
    uint64_t announced_ = 0;  // bytes, of all disks that are sent
    bool offered_ = false;
    bool kept_ = false;
};

}  // namespace ivmm::peer
