#pragma once

#include <string>

#include "vmm/cli/cli.h"

/// The commands of the switch.
namespace ivmm::cli {

// Each adds one command; parsing it sets the action.
void add_switch(CLI::App& app, Action& action);
void add_divert(CLI::App& app, Action& action);
void add_undivert(CLI::App& app, Action& action);
void add_flows(CLI::App& app, Action& action);

/// A preset, or a file as the switch's process finds it.
std::string policy_parameter(const std::string& policy);

}  // namespace ivmm::cli
