#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "vmm/cli/guest_command.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/fork/clone_removal.h"
#include "vmm/fork/net_fork.h"

namespace ivmm::cli {
namespace {

struct RmOptions {
    std::vector<std::string> clones;
    bool all = false;
    bool force = false;
};

Result<void> remove_clone(const std::string& name, bool force) {
    IVMM_ASSIGN(const auto record, read_clone_record(name));
    IVMM_ASSIGN(const bool running, is_running(name));
    if (running && !force) {
        return fail(
            "clone '{}' still runs; stop it first: `ivmm stop {}` (`ivmm rm --force {}` "
            "does both)",
            name, name, name);
    }
    if (running) {
        IVMM_TRY(stop_guest(name));
    }
    IVMM_TRY(remove_clone_disks(record, force));
    IVMM_ASSIGN(const auto cut_off, remove_clone_ports(name));
    for (const auto& peer : cut_off) {
        say(fmt::format("{} stays cut off from {}, until `ivmm undivert {} --attacker {}`",
                        peer.remote, peer.guest, peer.guest, peer.remote));
    }
    return {};
}

/// All that do not run, or with `force` all.
Result<std::vector<std::string>> all_clones(bool force) {
    auto names = clone_names();
    IVMM_ASSIGN(const auto running, RuntimeDir::find().running());
    if (!force) {
        std::erase_if(names, [&](const std::string& name) {
            return std::ranges::find(running, name) != running.end();
        });
    }
    return names;
}

int remove(const RmOptions& options) {
    if (options.all != options.clones.empty()) {
        return report({ErrorKind::kUsage, 0,
                       "name the clones to be removed, or give --all; see `ivmm rm --help`"});
    }
    auto names = options.clones;
    if (options.all) {
        auto all = all_clones(options.force);
        if (!all) {
            return report(all.error());
        }
        names = *std::move(all);
    }
    int code = 0;
    for (const auto& name : names) {
        if (const auto removed = remove_clone(name, options.force); !removed) {
            code = std::max(code, report(removed.error()));
        } else if (options.all) {
            print("{}: removed\n", name);
        }
    }
    return code;
}

}  // namespace

void add_rm(CLI::App& app, Action& action) {
    auto* const command =
        app.add_subcommand("rm", "Remove clones that have ended, with their disks");
    const auto options = std::make_shared<RmOptions>();
    command->add_option("CLONE", options->clones, "Names of clones");
    command->add_flag("--all", options->all, "All clones that have ended");
    command->add_flag("--force", options->force,
                      "Also those that run (they are stopped) and those whose files are in use");
    command->footer(
        "The primary and its disks stay as they are.\n"
        "Example:\n  ivmm rm web-1");
    command->callback([&action, options] { action = [options] { return remove(*options); }; });
}

}  // namespace ivmm::cli
