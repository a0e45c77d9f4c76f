#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/config/clone_settings.h"
#include "vmm/fork/memory_changes.h"

namespace ivmm {

/// What a hook is told of the clone that it is run for.
struct HookedClone {
    std::string clone;
    std::string primary;
    std::string attacker;  ///< may be empty
    /// The image of the memory as it was at the fork: a path that can be opened for reading.
    std::string memory;
    /// Of each disk of the guest; empty: it is not the clone's own, and must not be changed.
    std::vector<std::string> disks;
};

/// Runs a hook and waits for its end. What it writes to standard error goes to this process's; its
/// standard output says what is to be changed in memory. Its process group ends with it.
/// Errors: it cannot be run, fails, takes too long, or prints something else.
Result<std::vector<MemoryChange>> run_clone_hook(const CloneHook& hook, const HookedClone& clone);

}  // namespace ivmm
