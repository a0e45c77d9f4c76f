#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "base/unique_fd.h"
#include "vmm/cli/overlay.h"
#include "vmm/overlay/mount_table.h"
#include "vmm/overlay/running_servers.h"

namespace ivmm::cli {
namespace {

using rpc::Json;

/// Preparing the layers waits for the disk.
constexpr std::chrono::minutes kViewForkPatience{5};

struct OverlayForkOptions {
    std::string mountpoint;
    std::vector<std::string> targets;
    bool as_json = false;
};

/// "NAME" or "NAME=MNT2".
Result<Json> parse_target(const std::string& text) {
    const size_t equals = text.find('=');
    Json target = {{"view", text.substr(0, equals)}};
    if (equals == 0) {
        return fail_as(ErrorKind::kUsage, "'{}' has no name for the new view; NAME=MNT is wanted",
                       text);
    }
    if (equals != text.npos) {
        IVMM_ASSIGN(target["mountpoint"],
                    overlay::resolve_directory("mount point", text.substr(equals + 1)));
    }
    return target;
}

/// What was written through shared mappings is still with the kernel.
Result<void> write_back(const std::string& mountpoint) {
    const UniqueFd root(::open(mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root || ::syncfs(root.get()) != 0) {
        return fail_errno("cannot write back what is mapped of '{}'", mountpoint);
    }
    return {};
}

void show_views(const Json& report) {
    const std::string view = report.value("view", "");
    print("view {}: layer {} is frozen, {} goes on in layer {}\n", view,
          report.value("frozen_layer", 0), view, report.value("layer", 0));
    for (const auto& target : report.value("targets", Json::array())) {
        print("view {}: layer {}, {}\n", target.value("view", ""), target.value("layer", 0),
              target.contains("mountpoint") ? "mounted at " + target.value("mountpoint", "")
                                            : "not mounted");
    }
    print("paused for {:.0f} µs, {:.0f} of them to let operations in flight end\n",
          report.value("pause_us", 0.0), report.value("drain_us", 0.0));
}

Result<void> fork(const OverlayForkOptions& options) {
    Json targets = Json::array();
    for (const auto& text : options.targets) {
        IVMM_ASSIGN(auto target, parse_target(text));
        targets.push_back(std::move(target));
    }
    IVMM_ASSIGN(auto served, overlay::find_mount(options.mountpoint));
    IVMM_TRY(write_back(served.mountpoint));
    IVMM_ASSIGN(const auto report,
                served.server.client.call("fork", {{"view", served.view}, {"targets", targets}},
                                          kViewForkPatience));
    if (options.as_json) {
        print("{}\n", report.dump(2));
    } else {
        show_views(report);
    }
    return {};
}

}  // namespace

void add_overlay_fork(CLI::App& overlay, Action& action) {
    auto* const command = overlay.add_subcommand(
        "fork", "Make new views that begin as this mount is now, while it is in use");
    const auto options = std::make_shared<OverlayForkOptions>();
    command->add_option("MNT", options->mountpoint, "Where the view to be forked is mounted")
        ->required();
    command
        ->add_option("NAME[=MNT2]", options->targets,
                     "A view to be made, and where it is to be mounted")
        ->required();
    command->add_flag("--json", options->as_json, "For programs");
    command->footer("Example:\n  ivmm overlay fork /mnt/web copy=/mnt/copy before-upgrade");
    command->callback(
        [&action, options] { action = [options] { return finish(fork(*options)); }; });
}

}  // namespace ivmm::cli
