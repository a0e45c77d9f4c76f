#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/machine/machine.h"
#include "vmm/snapshot/memory_chain.h"
#include "vmm/snapshot/snapshot.h"

namespace ivmm {

/// What whoever restores a guest may choose.
struct RestoreRequest {
    std::string folder;                          ///< of the snapshot; absolute
    std::optional<std::string> name;             ///< of the guest; default: what it was
    std::optional<std::vector<NetConfig>> nets;  ///< cables of the first devices; others get none
    std::vector<std::string> disks;  ///< used in the place of all disks, if there are any
    bool check = false;              ///< read all of the memory first
};

/// A guest that is about to go on from a snapshot. One thread.
class Restoration {
 public:
    /// Reads the snapshot, and checks all that can be checked without KVM.
    static Result<Restoration> open(const RestoreRequest& request);

    /// The guest as it will be; disks that are forked for it have their paths once it is made.
    const GuestConfig& config() const { return config_; }

    /// The machine, ready to start. Forks the snapshot's own disks for it, as clones' disks are,
    /// unless it has others. What the guest prints goes to `output`. After an error there is no
    /// trace of it. At most once.
    Result<std::unique_ptr<Machine>> make(ConsoleOutput& output);

 private:
    Restoration(Snapshot snapshot, MemoryChain memory)
        : snapshot_(std::move(snapshot)), memory_(std::move(memory)) {}
    Result<void> choose_nets(const std::vector<NetConfig>& nets);
    Result<void> choose_disks(const std::vector<std::string>& paths);
    Result<std::unique_ptr<Machine>> make_machine(ConsoleOutput& output) const;

    Snapshot snapshot_;
    MemoryChain memory_;
    GuestConfig config_;
    bool forks_disks_ = false;
};

}  // namespace ivmm
