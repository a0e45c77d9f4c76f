#include "vmm/cli/guest_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "vmm/config/validate.h"
#include "vmm/control/runtime_dir.h"

namespace ivmm::cli {

Result<ControlClient> connect_to_guest(const std::string& name) {
    IVMM_TRY(check_guest_name(name));
    IVMM_ASSIGN(auto socket, RuntimeDir::find().connect(name));
    return ControlClient(std::move(socket));
}

Result<bool> is_running(const std::string& name) {
    IVMM_ASSIGN(const auto running, RuntimeDir::find().running());
    return std::ranges::find(running, name) != running.end();
}

Result<void> stop_guest(const std::string& name) {
    IVMM_ASSIGN(auto client, connect_to_guest(name));
    // Its number, for the message when it does not answer any more.
    IVMM_ASSIGN(const auto status, client.call("status"));
    IVMM_TRY(client.call("stop"));
    if (!client.wait_for_end("guest.stopped", kStopPatience)) {
        return fail("guest '{}' does not end; `kill -9 {}` ends its process", name,
                    status.value("pid", 0));
    }
    return {};
}

CLI::App* add_guest_command(CLI::App& app, Action& action, const char* command,
                            const char* description,
                            std::function<int(const std::string& name)> act) {
    auto* const added = app.add_subcommand(command, description);
    const auto name = std::make_shared<std::string>();
    added->add_option("NAME", *name, "Name of the guest, as `ivmm ls` shows it")->required();
    added->footer(fmt::format("Example:\n  ivmm {} web", command));
    added->callback(
        [&action, name, act = std::move(act)] { action = [name, act] { return act(*name); }; });
    return added;
}

std::string format_duration(double seconds) {
    const auto total = static_cast<uint64_t>(seconds);
    const uint64_t minutes = total / 60;
    const uint64_t hours = minutes / 60;
    if (hours >= 24) {
        return fmt::format("{}d {:02}h", hours / 24, hours % 24);
    }
    if (hours > 0) {
        return fmt::format("{}h {:02}m", hours, minutes % 60);
    }
    if (minutes > 0) {
        return fmt::format("{}m {:02}s", minutes, total % 60);
    }
    return fmt::format("{}s", total);
}

}  // namespace ivmm::cli
