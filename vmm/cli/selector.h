#pragma once

#include <string>

#include "base/result.h"
#include "vmm/cli/cli.h"
#include "vmm/control/json_rpc.h"

/// Which flows a command is about, as the switch's methods have it (docs/switch.md).
namespace ivmm::cli {

/// What the options of a command say; empty: not given.
struct SelectorOptions {
    std::string attacker;  ///< "ADDRESS", "ADDRESS:PORT", "[ADDRESS]:PORT"
    std::string flow;      ///< "PROTOCOL,ADDRESS:PORT,ADDRESS:PORT": the far end, then the guest's
    std::string scope;

    bool given() const { return !attacker.empty() || !flow.empty(); }
};

/// Adds the options to a command.
void add_selector(CLI::App& command, SelectorOptions& options);
/// Errors: kUsage.
Result<rpc::Json> selector_parameters(const SelectorOptions& options);

}  // namespace ivmm::cli
