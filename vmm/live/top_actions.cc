#include "vmm/live/top_actions.h"

#include "vmm/cli/guest_command.h"
#include "vmm/switch/running_switches.h"

namespace ivmm::live {

using rpc::Json;

Result<std::string> freeze_or_thaw(const std::string& guest) {
    IVMM_ASSIGN(auto client, cli::connect_to_guest(guest));
    constexpr std::chrono::seconds kPatience{2};
    IVMM_ASSIGN(const auto status, client.call("status", Json::object(), kPatience));
    const bool is_paused = status.value("state", "") == "paused";
    IVMM_TRY(client.call(is_paused ? "resume" : "pause", Json::object(), kPatience));
    return fmt::format("{} {}", guest, is_paused ? "runs again" : "is frozen");
}

Result<std::string> undivert_all(const std::string& clone) {
    IVMM_ASSIGN(auto found, find_switch_port(clone));
    size_t undiverted = 0;
    for (const auto& one : found.owner.status.value("diversions", Json::array())) {
        if (one.value("clone", "") != clone) {
            continue;
        }
        Json selector{{"guest", one.value("guest", "")}};
        if (one.contains("flow")) {
            selector["flow"] = one["flow"];
        } else {
            selector["remote"] = one.value("remote", "");
            selector["scope"] = one.value("scope", "");
        }
        IVMM_TRY(found.owner.client.call("undivert", selector));
        ++undiverted;
    }
    return undiverted == 0 ? fmt::format("nothing goes to {}", clone)
                           : fmt::format("{} diversions to {} have ended", undiverted, clone);
}

}  // namespace ivmm::live
