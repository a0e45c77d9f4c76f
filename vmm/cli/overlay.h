#pragma once

#include "vmm/cli/cli.h"

/// The commands of `ivmm overlay`: one file each.
namespace ivmm::cli {

// Each adds one command; parsing it sets the action.
void add_overlay_mount(CLI::App& overlay, Action& action);
void add_overlay_fork(CLI::App& overlay, Action& action);
void add_overlay_umount(CLI::App& overlay, Action& action);
void add_overlay_status(CLI::App& overlay, Action& action);
void add_overlay_ls(CLI::App& overlay, Action& action);
void add_overlay_rm(CLI::App& overlay, Action& action);
void add_overlay_flatten(CLI::App& overlay, Action& action);
void add_overlay_check(CLI::App& overlay, Action& action);
void add_overlay_diff(CLI::App& overlay, Action& action);
void add_overlay_export(CLI::App& overlay, Action& action);
void add_overlay_import(CLI::App& overlay, Action& action);

/// The exit code of a command: of its error, which is said, or 0.
int finish(const Result<void>& outcome);

}  // namespace ivmm::cli
