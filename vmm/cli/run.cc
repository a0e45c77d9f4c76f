#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmm/cli/cli.h"
#include "vmm/cli/clone_options.h"
#include "vmm/cli/run_guest.h"
#include "vmm/config/device_spec.h"
#include "vmm/config/guest_file.h"
#include "vmm/config/size.h"
#include "vmm/config/validate.h"

namespace ivmm::cli {
namespace {

struct RunOptions {
    std::string guest_file;
    std::optional<std::string> name;
    std::optional<std::string> kernel;
    std::optional<std::string> initrd;
    std::optional<std::string> cmdline;
    std::optional<std::string> memory;
    std::optional<uint32_t> cpus;
    std::vector<std::string> disks;
    std::vector<std::string> nets;
    CloneOptions clones;
    bool standby = false;
    bool no_acpi = false;
    bool detach = false;
};

/// The guest file with what the command line says instead.
Result<GuestConfig> configuration(const RunOptions& options) {
    GuestConfig config;
    if (!options.guest_file.empty()) {
        IVMM_ASSIGN(config, load_guest_file(options.guest_file));
    }
    config.name = options.name.value_or(config.name);
    if (config.name.empty() && !options.name) {
        config.name = fmt::format("guest-{}", ::getpid());
    }
    config.kernel = options.kernel.value_or(config.kernel);
    config.initrd = options.initrd.value_or(config.initrd);
    config.cmdline = options.cmdline.value_or(config.cmdline);
    config.cpus = options.cpus.value_or(config.cpus);
    config.acpi = config.acpi && !options.no_acpi;
    config.standby = config.standby || options.standby;
    if (options.memory) {
        IVMM_ASSIGN(config.memory_bytes, parse_size(*options.memory));
    }
    if (!options.disks.empty()) {
        config.disks.clear();
    }
    for (const auto& spec : options.disks) {
        IVMM_ASSIGN(auto disk, parse_disk_spec(spec));
        config.disks.push_back(std::move(disk));
    }
    if (!options.nets.empty()) {
        config.nets.clear();
    }
    for (const auto& spec : options.nets) {
        IVMM_ASSIGN(auto net, parse_net_spec(spec));
        config.nets.push_back(std::move(net));
    }
    IVMM_TRY(apply(options.clones, config.clones));
    IVMM_TRY(validate(config));
    return config;
}

int run(const RunOptions& options) {
    const auto config = configuration(options);
    return config ? run_guest(*config, options.detach, &Machine::create) : report(config.error());
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
    auto* const command = app.add_subcommand("run", "Run a guest; its console on this terminal");
    const auto options = std::make_shared<RunOptions>();
    command->add_option("GUEST.toml", options->guest_file,
                        "Guest file; the options below replace what it says");
    command->add_option("--name", options->name, "Name of the guest");
    command->add_option("--kernel", options->kernel, "Kernel: ELF with a PVH note, or bzImage");
    command->add_option("--initrd", options->initrd, "Initial RAM disk");
    command->add_option("--cmdline", options->cmdline, "Kernel command line");
    command->add_option("--mem", options->memory, "Memory, such as 512M or 2G (default 256M)");
    command->add_option("--cpus", options->cpus, "Number of vCPUs, 1 to 8 (default 1)");
    command->add_option("--disk", options->disks, "Disk: PATH[,ro][,serial=S]; once for each disk")
        ->allow_extra_args(false);
    command
        ->add_option("--net", options->nets,
                     "Network: tap=NAME[,mac=M][,host=ADDRESS/PREFIX][,existing] or "
                     "switch=NAME[,port=P][,mac=M]; once for each (docs/guest-file.md)")
        ->allow_extra_args(false);
    command->add_flag("--standby", options->standby, "Keep a standby in sync: see `ivmm fork`");
    add_clone_life(*command, options->clones);
    add_clone_number(*command, options->clones);
    command->add_flag("--no-acpi", options->no_acpi, "No ACPI tables, for kernels without ACPI");
    command->add_flag("-d,--detach", options->detach, "Return as soon as the guest runs");
    command->footer(
        "Ctrl-] leaves the console and lets the guest go on; Ctrl-C goes to the guest.\n"
        "The guest ends with this program unless it was detached.\n"
        "Example:\n"
        "  ivmm run --name web --kernel vmlinux --disk root.img --mem 512M \\\n"
        "      --net tap=web0,host=10.0.0.1/24 --cmdline \"root=/dev/vda console=ttyS0\"");
    command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace ivmm::cli
