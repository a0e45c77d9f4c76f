#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/config/guest_config.h"
#include "vmm/control/control_client.h"
#include "vmm/fork/fork_report.h"

namespace ivmm {

/// The network's part of a fork: hands an attacker's flows to the clone at the instant, at every
/// switch that the guest is connected to (docs/switch.md, "A fork"). Used by one thread at a time.
class NetFork {
 public:
    /// Makes the clone's ports. Nothing is held yet. Errors (nothing has happened): the guest is on
    /// no switch, the switch does not answer, a port has the clone's name.
    static Result<std::unique_ptr<NetFork>> prepare(const std::vector<NetConfig>& nets,
                                                    const std::string& clone,
                                                    const DivertRequest& request);
    /// Rolls back, unless keep() was called: the flows stay with the guest. After commit() they are
    /// cut off instead, for the guest no longer knows what the attacker was told.
    ~NetFork();
    NetFork(const NetFork&) = delete;
    NetFork& operator=(const NetFork&) = delete;

    /// Cables of the clone's network devices.
    const std::vector<NetConfig>& nets() const { return clone_nets_; }

    /// From here on what comes for these flows waits. As late as possible: for two seconds at most.
    /// Errors: there is no such flow, it is diverted already, or held by another fork.
    Result<void> hold();
    /// The instant: while the guest is paused. At most once. Errors: the hold is over, the switch
    /// does not answer.
    Result<void> commit();
    /// The clone runs.
    void keep() { kept_ = true; }

    /// After commit(); times in microseconds.
    const NetForkReport& report() const { return report_; }

 private:
    /// One network device of the guest that is on a switch.
    struct Cable {
        ControlClient client;
        std::string guest_port;
        std::string clone_port;
        bool holds = false;
        uint32_t hold = 0;
    };

    explicit NetFork(DivertRequest request) : request_(std::move(request)) {}
    Result<void> add(const NetConfig& net, const std::string& clone_port);

    const DivertRequest request_;
    std::vector<Cable> cables_;
    std::vector<NetConfig> clone_nets_;
    NetForkReport report_;
    bool kept_ = false;
};

/// A peer that is cut off: from the guest, because its flows were a clone's that has gone.
struct CutOff {
    std::string guest;
    std::string remote;
};

/// Removes what the switches of this host have of a clone that has ended. Who was diverted to it
/// stays cut off. Errors: a switch does not answer.
Result<std::vector<CutOff>> remove_clone_ports(const std::string& clone);

}  // namespace ivmm
