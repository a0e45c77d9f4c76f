#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "vmm/cli/overlay.h"
#include "vmm/overlay/mount_spec.h"
#include "vmm/overlay/mount_table.h"
#include "vmm/overlay/overlay_json.h"
#include "vmm/overlay/overlay_process.h"

namespace ivmm::cli {
namespace {

using storage::OverlayServer;

struct OverlayMountOptions {
    std::vector<std::string> specs;
    std::string mountpoint;
    bool foreground = false;
    uint32_t threads = storage::MountOptions{}.threads;
};

bool is_within(const std::string& path, const std::string& directory) {
    return path == directory || path.starts_with(directory + "/");
}

/// The upper need not exist yet, but what it is to be in.
Result<std::string> resolve_upper(const std::string& path) {
    if (std::filesystem::exists(std::filesystem::symlink_status(path))) {
        return overlay::resolve_directory("upper", path);
    }
    const auto full = std::filesystem::path(path.substr(0, path.find_last_not_of('/') + 1));
    const std::string parent = full.has_parent_path() ? full.parent_path().string() : ".";
    IVMM_ASSIGN(const auto resolved, overlay::resolve_directory("upper", parent));
    return (std::filesystem::path(resolved) / full.filename()).string();
}

/// A server that needed its own mount would wait for itself.
Result<void> check_not_within(const std::string& path, const std::string& mountpoint) {
    if (is_within(path, mountpoint)) {
        return fail_as(ErrorKind::kUsage, "'{}' would be hidden by a mount at '{}'", path,
                       mountpoint);
    }
    return {};
}

Result<void> check_free(const std::string& mountpoint) {
    IVMM_ASSIGN(const auto mounts, overlay::read_mount_table());
    for (const auto& mount : mounts) {
        if (mount.mountpoint == mountpoint) {
            return fail("an overlay is mounted at '{}' already; `ivmm overlay status {}` shows it",
                        mountpoint, mountpoint);
        }
    }
    return {};
}

Result<OverlayServer::Options> server_options(const OverlayMountOptions& given) {
    std::string text;
    for (const auto& part : given.specs) {
        text += (text.empty() ? "" : ",") + part;
    }
    IVMM_ASSIGN(const auto spec, overlay::parse_mount_spec(text));
    OverlayServer::Options options;
    options.view = spec.view;
    options.flatten_from = spec.flatten_from;
    IVMM_ASSIGN(options.mount.mountpoint,
                overlay::resolve_directory("mount point", given.mountpoint));
    options.mount.threads = given.threads;
    options.mount.read_only = spec.read_only || spec.upper.empty();
    for (const auto& branch : spec.lower) {
        IVMM_ASSIGN(auto resolved, overlay::resolve_directory("lower", branch));
        IVMM_TRY(check_not_within(resolved, options.mount.mountpoint));
        options.lower.push_back(std::move(resolved));
    }
    if (!spec.upper.empty()) {
        IVMM_ASSIGN(options.store, resolve_upper(spec.upper));
        IVMM_TRY(check_not_within(options.store, options.mount.mountpoint));
    }
    IVMM_TRY(check_free(options.mount.mountpoint));
    return options;
}

int mount(const OverlayMountOptions& given) {
    const auto options = server_options(given);
    if (!options) {
        return report(options.error());
    }
    return given.foreground ? overlay::serve_in_foreground(*options)
                            : overlay::serve_in_background(*options);
}

}  // namespace

void add_overlay_mount(CLI::App& overlay, Action& action) {
    auto* const command = overlay.add_subcommand("mount", "Mount a view of some layers");
    const auto options = std::make_shared<OverlayMountOptions>();
    command
        ->add_option(
            "-o,--options", options->specs,
            "lower=A:B (read-only branches, topmost first), upper=U (where changes go; "
            "without it the mount is read-only), view=NAME (default main), flatten=N (merge "
            "frozen layers when a view has more than N), ro. "
            "A backslash before ',', ':' or '\\' in a path")
        ->required()
        ->allow_extra_args(false);
    command->add_option("MNT", options->mountpoint, "Where: a directory")->required();
    command->add_flag("-f,--foreground", options->foreground,
                      "Serve from this process until it is unmounted or gets SIGINT or SIGTERM");
    command->add_option("--threads", options->threads, "That serve requests (default 8)")
        ->check(CLI::Range(uint32_t{1}, overlay::kMaxThreads));
    command->footer(
        "Example:\n"
        "  ivmm overlay mount -o lower=/srv/patches:/srv/base,upper=/srv/web /mnt/web");
    command->callback([&action, options] { action = [options] { return mount(*options); }; });
}

}  // namespace ivmm::cli
