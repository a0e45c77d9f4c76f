#include "vmm/cli/guest_command.h"

namespace ivmm::cli {
namespace {

int pause_guest(const std::string& name) {
    auto client = connect_to_guest(name);
    if (!client) {
        return report(client.error());
    }
    const auto answer = client->call("pause");
    return answer ? 0 : report(answer.error());
}

}  // namespace

void add_pause(CLI::App& app, Action& action) {
    add_guest_command(app, action, "pause",
                      "Stop the vCPUs and devices of a guest until it is resumed", &pause_guest);
}

}  // namespace ivmm::cli
