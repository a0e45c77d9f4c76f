#pragma once

#include "base/event_loop.h"
#include "vmm/control/control_server.h"
#include "vmm/fork/standby_keeper.h"

namespace ivmm {

/// The methods of a guest's control socket that have to do with its standby and its forks
/// (docs/control-socket.md). On the control thread; what it is given must outlive it.
class ForkControl {
 public:
    /// `settings`: what holds of clones of which nobody says otherwise.
    ForkControl(StandbyKeeper& keeper, const CloneSettings& settings, ControlServer& server,
                EventLoop& control);
};

}  // namespace ivmm
