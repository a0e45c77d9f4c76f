#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "vmm/console/console_hub.h"
#include "vmm/control/control_server.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// The control socket's methods for one guest. On the control thread; what it is given must
/// outlive it.
class GuestControl {
 public:
    /// Adds the methods to the server. `on_detach` is called when the client that owns the guest
    /// leaves it to itself.
    GuestControl(std::string name, Machine& machine, ConsoleHub& console, ControlServer& server,
                 std::function<void()> on_detach);

    /// Serves the client that the guest's life depends on: when it goes without a `detach`, the
    /// guest is stopped.
    Result<void> adopt_owner(UniqueFd socket);
    bool has_owner() const { return owner_ != nullptr; }

    /// Adds to the answers of `status`.
    void describe_with(std::function<void(rpc::Json&)> describe) {
        describe_ = std::move(describe);
    }
    /// As the method of this name, for nobody.
    void pause();

    /// Hands all clients what is left of the console, and tells the subscribers.
    void announce_end(const Ending& ending);

 private:
    rpc::Json status();
    Result<rpc::Json> pause_for_client();
    Result<rpc::Json> resume();
    Result<rpc::Json> attach_console(ControlConnection& client);
    Result<rpc::Json> console_input(const rpc::Json& params);
    Result<rpc::Json> detach(ControlConnection& client);

    const std::string name_;
    Machine& machine_;
    ConsoleHub& console_;
    ControlServer& server_;
    const std::function<void()> on_detach_;
    std::function<void(rpc::Json&)> describe_;
    const ControlConnection* owner_ = nullptr;
    const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
    bool paused_ = false;
};

}  // namespace ivmm
