#include "vmm/cli/guest_command.h"

namespace ivmm::cli {
namespace {

int resume_guest(const std::string& name) {
    auto client = connect_to_guest(name);
    if (!client) {
        return report(client.error());
    }
    const auto answer = client->call("resume");
    return answer ? 0 : report(answer.error());
}

}  // namespace

void add_resume(CLI::App& app, Action& action) {
    add_guest_command(app, action, "resume", "Let a paused guest run again", &resume_guest);
}

}  // namespace ivmm::cli
