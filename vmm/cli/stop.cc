#include "vmm/cli/guest_command.h"

namespace ivmm::cli {
namespace {

/// Disks may have writes in flight; a guest has nothing else to wait for.
constexpr std::chrono::seconds kStopPatience{60};

Result<void> stop(const std::string& name) {
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

int stop_guest(const std::string& name) {
    const auto stopped = stop(name);
    return stopped ? 0 : report(stopped.error());
}

}  // namespace

void add_stop(CLI::App& app, Action& action) {
    add_guest_command(app, action, "stop", "End a guest at once, like a power cut", &stop_guest);
}

}  // namespace ivmm::cli
