#include <CLI/CLI.hpp>
#include <memory>

#include "vmm/cli/live.h"
#include "vmm/live/top.h"

namespace ivmm::cli {

void add_top(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand(
        "top", "Watch guests, standbys, clones and their flows on this terminal");
    const auto options = std::make_shared<live::TopOptions>();
    command->add_flag("--once", options->once, "Print it once, as text");
    command->add_flag("--json", options->as_json, "Print it once, for programs");
    command->footer(
        "Keys: arrows or j and k select, f freezes or thaws, u undiverts, q ends.\n"
        "Example:\n  ivmm top --once");
    command->callback(
        [&action, options] { action = [options] { return live::run_top(*options); }; });
}

}  // namespace ivmm::cli
