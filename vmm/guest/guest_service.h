#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/console/console_hub.h"
#include "vmm/control/control_server.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/guest/clone_witness.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// What the process of a guest does: serves the guest's control socket from its start to its end.
/// One thread, the control thread.
class GuestService {
 public:
    /// The guest is to print to console().
    static Result<std::unique_ptr<GuestService>> create();

    ConsoleHub& console() { return *console_; }

    /// Who the guest is and what it is.
    struct Guest {
        GuestLock lock;  ///< of its name
        std::unique_ptr<Machine> machine;
        /// A socket on which the guest's life depends: when the client at its other end goes
        /// without having detached, the guest is stopped. May be empty.
        UniqueFd owner;
        CloneSettings clones = {};                 ///< of its clones
        CloneLimits limits = {};                   ///< its own, if it is a clone
        std::optional<ForkPoint> fork_point = {};  ///< if it is a clone
    };
    /// Starts the guest and serves it until it has ended; then releases all that it had. Once.
    /// `on_started` is called when the vCPUs run. Returns the exit code.
    Result<int> run(Guest guest, const std::function<void()>& on_started = {});

 private:
    GuestService(std::unique_ptr<EventLoop> loop, std::unique_ptr<ConsoleHub> console)
        : loop_(std::move(loop)), console_(std::move(console)), server_(*loop_) {}

    std::unique_ptr<EventLoop> loop_;
    std::unique_ptr<ConsoleHub> console_;
    // Outlives the guest: who sees its connection end finds the guest's things released.
    ControlServer server_;
};

}  // namespace ivmm
