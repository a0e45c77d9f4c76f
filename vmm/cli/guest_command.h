#pragma once

#include <chrono>
#include <string>

#include "base/result.h"
#include "vmm/cli/cli.h"
#include "vmm/control/control_client.h"

/// What the commands that act on a running guest have in common.
namespace ivmm::cli {

/// How long a guest may take to end: its disks may have writes in flight, nothing else is waited
/// for.
inline constexpr std::chrono::seconds kStopPatience{60};

/// Checks the name and connects.
Result<ControlClient> connect_to_guest(const std::string& name);

/// Whether a guest of this name runs; a name that nobody can have is none.
Result<bool> is_running(const std::string& name);

/// Ends the guest at once; when this returns, it has released all it had.
Result<void> stop_guest(const std::string& name);

/// A command of one argument, the guest's name. `act` returns the exit code.
CLI::App* add_guest_command(CLI::App& app, Action& action, const char* command,
                            const char* description,
                            std::function<int(const std::string& name)> act);

/// "3d 04h", "2m 05s": the two largest units.
std::string format_duration(double seconds);

}  // namespace ivmm::cli
