#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/fork/disk_fork.h"
#include "vmm/fork/fork_report.h"
#include "vmm/fork/standby.h"
#include "vmm/fork/synchroniser.h"
#include "vmm/machine/machine_state.h"

namespace ivmm {

/// Where the forks of a machine go: a copy of its memory that is kept in sync, and a paused clone
/// over it. On this host (LocalTarget) or on another one (RemoteTarget).
///
/// One thread, but for last_round(), which is called on the control thread while that one waits.
class ForkTarget {
 public:
    struct Progress {
        Synchroniser::Round round;
        uint64_t replica_bytes = 0;  ///< memory of this host that the copy takes
        uint64_t lag_pages = 0;      ///< written, and not in the copy yet
        uint64_t sent_bytes = 0;     ///< over the network, since the target was made
        bool more = false;           ///< the next round should follow at once
        std::string trouble;  ///< why it is not in sync, if that is not only a matter of time
    };
    struct Started {
        std::string clone;  ///< its name, where that is not what was asked for
        int pid = 0;
        uint64_t first_run_ns = 0;  ///< CLOCK_MONOTONIC of this host
        uint64_t private_bytes = 0;
        uint64_t hook_us = 0;
        std::vector<ForkReport::Disk> disks;
    };
    /// The clone's process, where this process is its parent.
    struct Child {
        pid_t pid;
        UniqueFd pidfd;
    };

    ForkTarget() = default;
    ForkTarget(const ForkTarget&) = delete;
    ForkTarget& operator=(const ForkTarget&) = delete;
    virtual ~ForkTarget() = default;

    /// One round, or, of a long one, a part. After an error the target is of no use any more.
    virtual Result<Progress> sync() = 0;

    /// Whether a fork can begin at once; the copy may lag behind, as it always does.
    virtual bool in_sync() const = 0;

    // A fork, in this order.

    /// Names the clone. Errors: the name is taken, there is no such network.
    virtual Result<void> prepare(const ForkRequest& request) = 0;
    /// Rounds until little is left for last_round(); gives their number.
    virtual Result<uint32_t> approach() = 0;
    /// While the machine is paused: takes what is left.
    virtual Result<Synchroniser::Round> last_round() = 0;
    /// Lets the clone run, from `state` and with these disks, one for each of the configuration.
    virtual Result<Started> start(const MachineState& state,
                                  const std::vector<ForkedDisk>& disks) = 0;

    /// Whether it was used up, by a fork or by an attempt at one.
    virtual bool spent() const = 0;
    /// Makes one that is spent or lost ready for the next fork, where that is better than to make
    /// another; false: it is not, and nothing was done. May take long.
    virtual Result<bool> renew() { return false; }
    /// Whether the clone reads the disks that start() was given, and goes on doing so.
    virtual bool uses_disks() const = 0;
    /// Readable when the target is lost; -1: there is no such descriptor.
    virtual int lost_fd() const = 0;
    /// The process of the paused clone; 0: on another host.
    virtual pid_t pid() const = 0;
    /// After start(), once: who the clone is, if it is a child of this process.
    virtual std::optional<Child> take_child() = 0;
    /// The image that the clone will have, open for reading: for more clones of the same instant.
    virtual Result<UniqueFd> open_image() const {
        return fail("several clones of one fork can only be had on the primary's host");
    }
    /// The replica here that is kept in sync; null: there is none, and until the next sync()
    /// somebody else may track the machine's pages.
    virtual Synchroniser* lend_synchroniser() = 0;
};

/// What a process on this host is told, to become that clone of the guest `primary`.
PrepareMessage order_for(const ForkRequest& request, const std::string& primary);
/// Lets the clone of a process on this host run.
Result<ForkTarget::Started> start_on(Standby& standby, const MachineState& state,
                                     const std::vector<ForkedDisk>& disks);

/// Makes a target, on the thread that is to use it; may take long.
using TargetFactory = std::function<Result<std::unique_ptr<ForkTarget>>()>;

}  // namespace ivmm
