#include <fmt/core.h>

#include <cstdio>

#include "vmm/cli/console_client.h"
#include "vmm/cli/guest_command.h"
#include "vmm/cli/signals.h"
#include "vmm/config/validate.h"
#include "vmm/control/runtime_dir.h"

namespace ivmm::cli {
namespace {

Result<int> console(const std::string& name) {
    IVMM_TRY(check_guest_name(name));
    IVMM_ASSIGN(auto socket, RuntimeDir::find().connect(name));
    const EndSignals signals;
    ConsoleClient client(std::move(socket), name, false);
    IVMM_ASSIGN(const auto outcome, client.run());
    switch (outcome) {
        case ConsoleClient::Outcome::kDetached:
            say(fmt::format("detached from guest '{}'", name));
            return 0;
        case ConsoleClient::Outcome::kEnded:
            say(fmt::format("guest '{}': {}", name, client.message()));
            return client.exit_code();
        case ConsoleClient::Outcome::kLost:
            return fail("the process of guest '{}' has gone without a word", name);
        case ConsoleClient::Outcome::kInterrupted:
            break;
    }
    return 1;
}

int console_of_guest(const std::string& name) {
    const auto code = console(name);
    return code ? *code : report(code.error());
}

}  // namespace

void add_console(CLI::App& app, Action& action) {
    add_guest_command(app, action, "console",
                      "Connect this terminal to a guest's console; Ctrl-] detaches",
                      &console_of_guest);
}

}  // namespace ivmm::cli
