#pragma once

#include <atomic>
#include <memory>

#include "base/event_loop.h"
#include "vmm/control/control_server.h"
#include "vmm/fork/standby_keeper.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// The methods of a guest's control socket that have to do with its snapshots
/// (docs/control-socket.md). On the control thread; what it is given must outlive it.
class SnapshotControl {
 public:
    SnapshotControl(Machine& machine, StandbyKeeper& keeper, ControlServer& server,
                    EventLoop& control);
    SnapshotControl(const SnapshotControl&) = delete;
    SnapshotControl& operator=(const SnapshotControl&) = delete;
    ~SnapshotControl() { cancel(); }

    /// A snapshot that is being made fails soon, and leaves nothing behind. Before the keeper ends,
    /// which waits for it.
    void cancel() { work_->cancelled = true; }

 private:
    /// Shared with the thread that makes the snapshot.
    struct Work {
        std::atomic<bool> busy = false;
        std::atomic<bool> cancelled = false;
        std::atomic<double> done = 0;  // of the memory, 0 to 1
    };
    void begin(const rpc::Json& params, const ControlServer::Answer& answer);

    Machine& machine_;
    StandbyKeeper& keeper_;
    EventLoop& control_;
    const std::shared_ptr<Work> work_ = std::make_shared<Work>();
};

}  // namespace ivmm
