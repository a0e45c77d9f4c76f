#include "vmm/switch/running_switches.h"

#include "vmm/control/runtime_dir.h"

namespace ivmm {

Result<std::vector<RunningSwitch>> running_switches() {
    const RuntimeDir runtime = RuntimeDir::find_switch();
    std::vector<RunningSwitch> all;
    IVMM_ASSIGN(const auto names, runtime.running());
    for (const auto& name : names) {
        auto socket = runtime.connect(name);
        if (!socket) {
            continue;
        }
        ControlClient client(*std::move(socket), fmt::format("switch '{}'", name));
        auto status = client.call("status");
        if (status) {
            all.push_back({name, std::move(client), *std::move(status)});
        }
    }
    return all;
}

Result<RunningSwitch> find_switch(const std::string& name) {
    IVMM_ASSIGN(auto all, running_switches());
    if (name.empty() && all.size() == 1) {
        return std::move(all.front());
    }
    for (auto& one : all) {
        if (one.name == name) {
            return std::move(one);
        }
    }
    if (name.empty()) {
        return all.empty() ? fail("no switch is running; `ivmm switch run NAME` starts one")
                           : fail("{} switches are running; say which one", all.size());
    }
    return fail("no switch '{}' is running", name);
}

Result<FoundPort> find_switch_port(const std::string& port) {
    IVMM_ASSIGN(auto all, running_switches());
    for (auto& one : all) {
        for (const auto& entry : one.status.value("ports", rpc::Json::array())) {
            if (entry.value("name", "") == port) {
                rpc::Json found = entry;
                return FoundPort{std::move(one), std::move(found)};
            }
        }
    }
    return fail("no switch has a port '{}'; `ivmm switch status` shows those that there are", port);
}

}  // namespace ivmm
