#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "memory/page_set.h"
#include "memory/replica.h"
#include "vmm/machine/dirty_tracker.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// Keeps a replica of a machine's memory in sync. Not thread-safe; the machine may run.
class Synchroniser {
 public:
    struct Round {
        uint64_t dirty = 0;   ///< pages that were written since the round before
        uint64_t copied = 0;  ///< of these, pages that had to be copied
        double us = 0;        ///< what the round took
    };

    /// Begins with an empty replica; the machine must outlive the synchroniser.
    static Result<std::unique_ptr<Synchroniser>> start(Machine& machine);

    /// Brings the replica up to what the memory was when the round began, or later. The first round
    /// copies everything. After an error nothing is forgotten: the next round does it.
    Result<Round> round();
    /// Rounds until they find few pages, or no fewer than before, so that what is left for the last
    /// one is what was written in the last moment. Gives their number.
    Result<uint32_t> approach();
    /// The last round before a fork, while the machine is paused: the replica equals the memory.
    Result<Round> last_round();

    const Replica& replica() const { return *replica_; }
    /// Hands out the replica; no more rounds then, until begin_anew().
    std::unique_ptr<Replica> take_replica() { return std::move(replica_); }
    /// Goes on with an empty replica.
    Result<void> begin_anew();

 private:
    Synchroniser(Machine& machine, std::unique_ptr<DirtyTracker> tracker,
                 std::unique_ptr<Replica> replica);
    /// What of the memory may be something else than zeroes; looking at the rest would make it
    /// take memory.
    void forget_holes();
    Round copy();

    Machine& machine_;
    std::unique_ptr<DirtyTracker> tracker_;
    std::unique_ptr<Replica> replica_;
    PageSet pending_;  // written, and not in the replica yet
    bool empty_ = true;
};

}  // namespace ivmm
