#include "vmm/fork/net_fork.h"

#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "vmm/config/device_spec.h"
#include "vmm/fork/clone_record.h"
#include "vmm/switch/running_switches.h"

namespace ivmm {
namespace {

using rpc::Json;

/// The guest stands still meanwhile: no longer than the far end waits before it sends again.
constexpr ControlClient::Milliseconds kCommitPatience{200};

bool is_port_of(const std::string& clone, const std::string& port) {
    if (port == clone) {
        return true;
    }
    // Of a later network device, unless it is the first one's of a clone with such a name.
    return port.starts_with(clone + ".") && ::access(clone_record_path(port).c_str(), F_OK) != 0;
}

}  // namespace

Result<std::unique_ptr<NetFork>> NetFork::prepare(const std::vector<NetConfig>& nets,
                                                  const std::string& clone,
                                                  const DivertRequest& request) {
    std::unique_ptr<NetFork> self(new NetFork(request));
    for (size_t i = 0; i < nets.size(); ++i) {
        NetConfig& cable = self->clone_nets_.emplace_back();
        if (!nets[i].switch_name.empty()) {
            cable.switch_name = nets[i].switch_name;
            cable.port = default_port(clone, i);
            IVMM_TRY(self->add(nets[i], cable.port));
        }
    }
    if (self->cables_.empty()) {
        return fail_as(ErrorKind::kUsage,
                       "no flow of the guest can be diverted: it is on no switch (`ivmm run --net "
                       "switch=NAME`)");
    }
    return self;
}

Result<void> NetFork::add(const NetConfig& net, const std::string& clone_port) {
    IVMM_ASSIGN(auto found, find_switch(net.switch_name));
    Json params{{"guest", net.port}, {"name", clone_port}};
    if (!request_.policy.empty()) {
        params["policy"] = request_.policy;
    }
    IVMM_TRY(found.client.call("add_clone", params));
    cables_.push_back({std::move(found.client), net.port, clone_port});
    return {};
}

Result<void> NetFork::hold() {
    Result<void> last;
    bool any = false;
    for (Cable& cable : cables_) {
        Json params = request_.selector;
        params["guest"] = cable.guest_port;
        auto held = cable.client.call("hold", params);
        if (held) {
            cable.hold = held->value("hold", uint32_t{0});
            cable.holds = any = true;
        } else {
            last = Unexpected{std::move(held).error()};
        }
    }
    // One flow is on one cable.
    return any ? Result<void>() : last;
}

Result<void> NetFork::commit() {
    for (Cable& cable : cables_) {
        if (!cable.holds) {
            continue;
        }
        Json params{{"hold", cable.hold}, {"clone", cable.clone_port}};
        if (request_.ttl_s > 0) {
            params["ttl_s"] = request_.ttl_s;
        }
        IVMM_ASSIGN(const auto done, cable.client.call("commit", params, kCommitPatience));
        cable.holds = false;
        report_.hold_us = std::max(report_.hold_us, done.value("hold_us", 0.0));
        report_.held_frames += done.value("held_frames", uint64_t{0});
        report_.unread_frames += done.value("unread_frames", uint64_t{0});
        report_.refused_frames += done.value("refused_frames", uint64_t{0});
    }
    return {};
}

Result<std::vector<CutOff>> remove_clone_ports(const std::string& clone) {
    std::vector<CutOff> cut_off;
    IVMM_ASSIGN(auto switches, running_switches());
    for (auto& one : switches) {
        for (const auto& port : one.status.value("ports", Json::array())) {
            const auto name = port.value("name", "");
            if (port.value("role", "") != "clone" || !is_port_of(clone, name)) {
                continue;
            }
            for (const auto& diversion : one.status.value("diversions", Json::array())) {
                if (diversion.value("clone", "") == name) {
                    cut_off.push_back(
                        {diversion.value("guest", ""), diversion.value("remote", "")});
                }
            }
            IVMM_TRY(one.client.call("remove_port", {{"port", name}}));
        }
    }
    return cut_off;
}

NetFork::~NetFork() {
    if (kept_) {
        return;
    }
    const auto tell = [](Cable& cable, const char* method, const Json& params) {
        if (const auto done = cable.client.call(method, params); !done) {
            log::warning("a fork that has failed left something at the switch: {}",
                         done.error().message);
        }
    };
    for (Cable& cable : cables_) {
        if (cable.holds) {
            tell(cable, "roll_back", {{"hold", cable.hold}});
        }
        tell(cable, "remove_port", {{"port", cable.clone_port}});
    }
}

}  // namespace ivmm
