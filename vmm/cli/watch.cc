#include <CLI/CLI.hpp>
#include <memory>

#include "vmm/cli/cli.h"
#include "vmm/watch/watch_process.h"

namespace ivmm::cli {

void add_watch(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand(
        "watch", "Fork a guest, or divert an attacker to a clone, when an alert comes");
    const auto options = std::make_shared<watch::WatchOptions>();
    command->add_option("RULES", options->rules_file, "Which alert leads to what (docs/watch.md)")
        ->required();
    command->add_option("--guest", options->guest, "Name of the guest to watch over")->required();
    command->add_option("--eve", options->eve_socket,
                        "Unix datagram socket to make, to which Suricata writes EVE events");
    command->add_option("--eve-file", options->eve_file,
                        "Suricata's eve.json, for alerts that were lost at the socket");
    command->add_option("--mirror", options->mirror,
                        "TAP of the switch's --mirror, for the rules' payloads");
    command->add_option("--log", options->log_file,
                        "File for decisions and their reasons, one JSON a line");
    command->add_flag("--dry-run", options->dry_run, "Decide and log, but do nothing");
    command->footer(
        "Runs in the foreground, until it is told to end.\n"
        "Example:\n  ivmm watch rules.toml --guest web --eve /run/suricata/eve.sock --log "
        "decisions.json");
    command->callback(
        [&action, options] { action = [options] { return watch::run_watch(*options); }; });
}

}  // namespace ivmm::cli
