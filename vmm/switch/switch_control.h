#pragma once

#include <chrono>
#include <string>

#include "net/switch_server.h"
#include "vmm/control/control_server.h"

namespace ivmm {

/// The control socket's methods for a switch (docs/switch.md). All on the switch's thread.
class SwitchControl {
 public:
    struct Settings {
        std::string name;
        net::Policy policy;       ///< of clones for which none is named
        std::string capture_dir;  ///< empty: nothing is recorded
        std::string events_file;  ///< of whoever writes them; for those who ask
    };

    /// Adds the methods to the server. What is given must outlive this.
    SwitchControl(Settings settings, net::Switch& net, net::SwitchServer& server,
                  ControlServer& control);

 private:
    using Json = rpc::Json;
    using Method = Result<Json> (SwitchControl::*)(const Json& params);

    Result<Json> status(const Json& params);
    Result<Json> metrics(const Json& params);
    Result<Json> clones(const Json& params);
    Result<Json> add_clone(const Json& params);
    Result<Json> remove_port(const Json& params);
    Result<Json> divert(const Json& params);
    Result<Json> undivert(const Json& params);
    Result<Json> flows(const Json& params);
    Result<Json> hold(const Json& params);
    Result<Json> commit(const Json& params);
    Result<Json> roll_back(const Json& params);

    /// The port that a parameter names. Errors: kUsage.
    Result<net::PortId> port(const Json& params, const char* name, net::Role role) const;
    Result<net::PortId> guest_of(net::PortId clone) const;

    const Settings settings_;
    net::Switch& net_;
    net::SwitchServer& server_;
    const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace ivmm
