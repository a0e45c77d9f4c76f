#include <CLI/CLI.hpp>
#include <memory>

#include "vmm/cli/overlay.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

/// Everything that was written goes to the disk.
constexpr std::chrono::hours kUmountPatience{1};

struct OverlayUmountOptions {
    std::vector<std::string> names;
    bool force = false;
};

Result<void> unmount_one(const std::string& name, bool force) {
    IVMM_ASSIGN(auto served, overlay::find_mount_or_view(name));
    auto& client = served.server.client;
    IVMM_ASSIGN(const auto answer,
                client.call("umount", {{"view", served.view}, {"force", force}}, kUmountPatience));
    if (answer.value("remaining", 0) == 0) {
        // The server ends; when it has, the store is free.
        IVMM_TRY(client.wait_for_end("overlay.unmounted", kUmountPatience));
    }
    return {};
}

int unmount(const OverlayUmountOptions& options) {
    int code = 0;
    for (const auto& name : options.names) {
        code = std::max(code, finish(unmount_one(name, options.force)));
    }
    return code;
}

}  // namespace

void add_overlay_umount(CLI::App& overlay, Action& action) {
    auto* const command =
        overlay.add_subcommand("umount", "Unmount views, with all that was written on the disk");
    const auto options = std::make_shared<OverlayUmountOptions>();
    command->add_option("MNT|VIEW", options->names, "Mount points, or names of views")->required();
    command->add_flag("--force", options->force, "Even if files in it are open");
    command->footer("Example:\n  ivmm overlay umount /mnt/copy /mnt/web");
    command->callback([&action, options] { action = [options] { return unmount(*options); }; });
}

}  // namespace ivmm::cli
