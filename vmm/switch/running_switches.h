#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/control/control_client.h"

/// The switches of this user, as their clients find them.
namespace ivmm {

struct RunningSwitch {
    std::string name;
    ControlClient client;
    rpc::Json status;
};

/// All that run and answer.
Result<std::vector<RunningSwitch>> running_switches();
/// The switch of this name, or the only one if the name is empty.
Result<RunningSwitch> find_switch(const std::string& name);
/// The switch that has a port of this name, and what its status says of it.
struct FoundPort {
    RunningSwitch owner;
    rpc::Json port;
};
Result<FoundPort> find_switch_port(const std::string& port);

}  // namespace ivmm
