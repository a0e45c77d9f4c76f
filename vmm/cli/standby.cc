#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "vmm/cli/clone_options.h"
#include "vmm/cli/guest_command.h"
#include "vmm/config/device_spec.h"
#include "vmm/config/size.h"
#include "vmm/fork/standby_process.h"
#include "vmm/overlay/mount_table.h"
#include "vmm/peer/keys.h"
#include "vmm/peer/listener.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

constexpr std::chrono::minutes kStandbyPatience{5};
/// Where the primary's process has put the standby's end of their connection.
constexpr int kChannelFd = 3;

struct StandbyOptions {
    std::string guest;
    bool off = false;
    std::string listen;
    std::string keys = peer::kDefaultKeys;
    std::string disks;
    std::vector<std::string> shared;
    std::vector<std::string> nets;
    CloneOptions clones;
};

Result<peer::HostOptions> host_options(const StandbyOptions& options) {
    peer::HostOptions host;
    host.keys = std::filesystem::absolute(options.keys).string();
    if (!options.disks.empty()) {
        IVMM_ASSIGN(host.disks.folder, overlay::resolve_directory("folder", options.disks));
    }
    for (const auto& spec : options.shared) {
        const size_t equals = spec.find('=');
        if (equals == 0 || equals == std::string::npos || spec.front() != '/') {
            return fail_as(ErrorKind::kUsage, "'{}' is not THERE=HERE, two folders", spec);
        }
        peer::SharedFolder shared;
        shared.there = spec.substr(0, equals);
        IVMM_ASSIGN(shared.here,
                    overlay::resolve_directory("shared folder", spec.substr(equals + 1)));
        host.disks.shared.push_back(std::move(shared));
    }
    for (const auto& spec : options.nets) {
        IVMM_ASSIGN(auto net, parse_net_spec(spec));
        host.nets.push_back(std::move(net));
    }
    CloneSettings clones;
    IVMM_TRY(apply(options.clones, clones));
    host.hook = std::move(clones.hook);
    host.limits = clones.limits;
    return host;
}

int listen_for_hosts(const StandbyOptions& options) {
    const auto host = host_options(options);
    return host ? peer::run_listener(options.listen, *host) : report(host.error());
}

int standby(const std::string& name, bool off) {
    if (name.empty()) {
        return report({ErrorKind::kUsage, 0,
                       "which guest? Give its NAME, or --listen HOST:PORT to keep standbys for "
                       "other hosts; see `ivmm standby --help`"});
    }
    auto client = connect_to_guest(name);
    if (!client) {
        return report(client.error());
    }
    const auto answer = client->call("standby", {{"keep", !off}}, kStandbyPatience);
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
    auto* const command = app.add_subcommand("standby", "Keep a paused clone of a guest in sync");
    const auto options = std::make_shared<StandbyOptions>();
    auto* const name =
        command->add_option("NAME", options->guest, "Name of the guest, as `ivmm ls` shows it");
    auto* const off = command->add_flag("--off", options->off, "Keep none any more");
    auto* const listen =
        command
            ->add_option("--listen", options->listen,
                         "HOST:PORT: keep standbys for guests of other hosts, which `ivmm "
                         "replicate` sends here, until SIGINT or SIGTERM")
            ->excludes(name)
            ->excludes(off);
    command->add_option("--key", options->keys, "Folder with the keys, that `ivmm keys` has made")
        ->capture_default_str()
        ->needs(listen);
    command
        ->add_option("--disks", options->disks,
                     "Folder for the disks of clones, and what they write to shared ones")
        ->needs(listen);
    command
        ->add_option("--shared", options->shared,
                     "THERE=HERE: the folder THERE of the other host is this host's HERE, by a "
                     "network file system: disks in it need not be sent")
        ->needs(listen)
        ->allow_extra_args(false);
    command
        ->add_option("--net", options->nets,
                     "Network of the clones, as for `ivmm run`; once for each device. Default: no "
                     "cable")
        ->needs(listen)
        ->allow_extra_args(false);
    add_clone_life(*command, options->clones);
    for (const char* const option : {"--hook", "--hook-timeout", "--lifetime", "--memory-limit"}) {
        command->get_option(option)->needs(listen);
    }
    command->footer(
        "Examples:\n"
        "  ivmm standby web\n"
        "  ivmm standby --listen 10.0.0.2:7070 --disks /srv/clones");
    command->callback([&action, options] {
        action = [options] {
            return options->listen.empty() ? standby(options->guest, options->off)
                                           : listen_for_hosts(*options);
        };
    });
}

void add_standby_process(CLI::App& app, Action& action) {
    // Not for people: without a group it is in no help.
    auto* const command = app.add_subcommand("standby-process")->group("");
    command->callback(
        [&action] { action = [] { return run_standby_process(UniqueFd(kChannelFd)); }; });
}

}  // namespace ivmm::cli
