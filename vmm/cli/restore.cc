#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmm/cli/cli.h"
#include "vmm/cli/clone_options.h"
#include "vmm/cli/run_guest.h"
#include "vmm/config/device_spec.h"
#include "vmm/snapshot/restore.h"

namespace ivmm::cli {
namespace {

struct RestoreOptions {
    std::string folder;
    std::optional<std::string> name;
    std::vector<std::string> nets;
    std::vector<std::string> disks;
    CloneOptions clones;
    bool check = false;
    bool detach = false;
};

Result<RestoreRequest> request_from(const RestoreOptions& options) {
    RestoreRequest request;
    request.folder = std::filesystem::absolute(options.folder).lexically_normal().string();
    request.name = options.name;
    request.disks = options.disks;
    request.check = options.check;
    if (!options.nets.empty()) {
        request.nets.emplace();
    }
    for (const auto& spec : options.nets) {
        IVMM_ASSIGN(auto net, parse_net_spec(spec));
        request.nets->push_back(std::move(net));
    }
    return request;
}

int restore(const RestoreOptions& options) {
    const auto request = request_from(options);
    if (!request) {
        return report(request.error());
    }
    CloneSettings clones;
    if (const auto said = apply(options.clones, clones); !said) {
        return report(said.error());
    }
    auto opened = Restoration::open(*request);
    if (!opened) {
        return report(opened.error());
    }
    // Shared only because std::function must be copyable.
    const auto restoration = std::make_shared<Restoration>(*std::move(opened));
    GuestConfig config = restoration->config();
    config.clones = clones;
    return run_guest(config, options.detach,
                     [restoration](const GuestConfig&, ConsoleOutput& output) {
                         return restoration->make(output);
                     });
}

}  // namespace

void add_restore(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand(
        "restore", "Let a guest go on from a snapshot; its console on this terminal");
    const auto options = std::make_shared<RestoreOptions>();
    command->add_option("DIR", options->folder, "Folder that `ivmm snapshot` has made")->required();
    command->add_option("--name", options->name, "Name of the guest (default: what it was)");
    command
        ->add_option(
            "--net", options->nets,
            "Network, as for `ivmm run`, in the place of what it was; once for each device")
        ->allow_extra_args(false);
    command
        ->add_option("--disk", options->disks,
                     "File to be used as it is in the place of a disk; once for each disk")
        ->allow_extra_args(false);
    add_clone_life(*command, options->clones);
    add_clone_number(*command, options->clones);
    command->add_flag("--check", options->check, "Read all of the memory first, and check it");
    command->add_flag("-d,--detach", options->detach, "Return as soon as the guest runs");
    command->footer(
        "The snapshot stays as it is, and can be restored again: disks that were forked for it\n"
        "are forked once more (`ivmm rm NAME` removes those). It must stay where it is as long as\n"
        "the guest runs.\n"
        "Example:\n"
        "  ivmm snapshot web /srv/web-monday\n"
        "  ivmm restore /srv/web-monday --name web-again --net tap=web1");
    command->callback([&action, options] { action = [options] { return restore(*options); }; });
}

}  // namespace ivmm::cli
