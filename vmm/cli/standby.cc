#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "vmm/cli/guest_command.h"
#include "vmm/config/size.h"
#include "vmm/fork/standby_process.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

constexpr std::chrono::minutes kPatience{5};
/// Where the primary's process has put the standby's end of their connection.
constexpr int kChannelFd = 3;

int standby(const std::string& name, bool off) {
    auto client = connect_to_guest(name);
    if (!client) {
        return report(client.error());
    }
    const auto answer = client->call("standby", {{"keep", !off}}, kPatience);
    if (!answer) {
        return report(answer.error());
    }
    if (off) {
        print("guest {} has no standby any more\n", name);
    } else {
        print("guest {} has a standby in sync: process {}, {} of memory\n", name,
              answer->value("pid", 0), format_size(answer->value("replica_bytes", uint64_t{0})));
    }
    return 0;
}

}  // namespace

void add_standby(CLI::App& app, Action& action) {
    const auto off = std::make_shared<bool>(false);
    auto* const command =
        add_guest_command(app, action, "standby", "Keep a paused clone of a guest in sync",
                          [off](const std::string& name) { return standby(name, *off); });
    command->add_flag("--off", *off, "Keep none any more");
}

void add_standby_process(CLI::App& app, Action& action) {
    // Not for people: without a group it is in no help.
    auto* const command = app.add_subcommand("standby-process")->group("");
    command->callback(
        [&action] { action = [] { return run_standby_process(UniqueFd(kChannelFd)); }; });
}

}  // namespace ivmm::cli
