#pragma once

#include "base/event_fd.h"
#include "vmm/control/control_server.h"
#include "vmm/fork/standby_keeper.h"
#include "vmm/machine/machine.h"

namespace ivmm::peer {

/// The control socket's method for a standby on another host. On the control thread; what it is
/// given must outlive it, and it must outlive the keeper.
class PeerControl {
 public:
    static Result<std::unique_ptr<PeerControl>> create(Machine& machine, StandbyKeeper& keeper,
                                                       ControlServer& server);
    /// From now on nothing waits for another host.
    void cancel() { interrupt_.signal(); }

 private:
    PeerControl(EventFd interrupt) : interrupt_(std::move(interrupt)) {}
    EventFd interrupt_;
};

}  // namespace ivmm::peer
