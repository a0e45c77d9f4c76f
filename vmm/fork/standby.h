#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/config/guest_config.h"
#include "vmm/fork/channel.h"
#include "vmm/machine/machine_state.h"

namespace ivmm {

/// A process that holds a complete but paused clone over a memory image, as the primary's process
/// sees it. One thread at a time. Dies with this object unless it was started.
class Standby {
 public:
    /// Starts the process: `program` with the argument `standby-process`. Returns before the clone
    /// is complete: wait_ready(). `image`: the replica, open for reading; the clone sees what is
    /// written to it until start().
    static Result<std::unique_ptr<Standby>> launch(const std::string& program,
                                                   const GuestConfig& config, UniqueFd image);
    /// The same, of a guest of another host.
    static Result<std::unique_ptr<Standby>> launch(const std::string& program,
                                                   const HelloMessage& hello, UniqueFd image);
    Standby(const Standby&) = delete;
    Standby& operator=(const Standby&) = delete;
    ~Standby();

    pid_t pid() const { return pid_; }
    /// Readable when the process has ended (pidfd_open(2)).
    int pidfd() const { return pidfd_.get(); }
    /// Of a process that was started: it is the caller's now, who has to wait for its end.
    UniqueFd take_pidfd() { return std::move(pidfd_); }
    Result<void> wait_ready();

    /// Makes it the clone of this name, with cables for its first network devices. Errors: the name
    /// is taken, a TAP cannot be had.
    Result<void> prepare(const PrepareMessage& order);
    /// From here on the process goes its own way. Waits for the clone's hook. Errors: the clone
    /// does not run, its process is gone.
    Result<RunningMessage> start(MachineState state, std::vector<std::string> disks);

 private:
    Standby(pid_t pid, UniqueFd pidfd, Channel channel)
        : pid_(pid), pidfd_(std::move(pidfd)), channel_(std::move(channel)) {}

    pid_t pid_;
    UniqueFd pidfd_;
    Channel channel_;
    Channel::Milliseconds hook_patience_{0};
    bool started_ = false;
};

}  // namespace ivmm
