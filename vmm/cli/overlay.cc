#include "vmm/cli/overlay.h"

#include <CLI/CLI.hpp>

namespace ivmm::cli {
namespace {

constexpr const char* kOverlayExamples = R"(Examples:
  ivmm overlay mount -o lower=/srv/base,upper=/srv/web /mnt/web
  ivmm overlay fork /mnt/web copy=/mnt/copy    both go on from here, each for itself
  ivmm overlay ls /mnt/web
  ivmm overlay umount /mnt/copy /mnt/web)";

}  // namespace

int finish(const Result<void>& outcome) {
    return outcome ? 0 : report(outcome.error());
}

void add_overlay(CLI::App& app, Action& action) {
    auto* const overlay = app.add_subcommand(
        "overlay", "Directories and disk images in layers that are forked while they are in use");
    overlay->require_subcommand(1);
    overlay->footer(kOverlayExamples);
    add_overlay_mount(*overlay, action);
    add_overlay_fork(*overlay, action);
    add_overlay_umount(*overlay, action);
    add_overlay_status(*overlay, action);
    add_overlay_ls(*overlay, action);
    add_overlay_rm(*overlay, action);
    add_overlay_flatten(*overlay, action);
    add_overlay_check(*overlay, action);
    add_overlay_diff(*overlay, action);
    add_overlay_export(*overlay, action);
    add_overlay_import(*overlay, action);
}

}  // namespace ivmm::cli
