#pragma once

#include "vmm/cli/cli.h"

/// The commands of the switch.
namespace ivmm::cli {

// Each adds one command; parsing it sets the action.
void add_switch(CLI::App& app, Action& action);
void add_divert(CLI::App& app, Action& action);
void add_undivert(CLI::App& app, Action& action);
void add_flows(CLI::App& app, Action& action);

}  // namespace ivmm::cli
