#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "vmm/cli/cli.h"
#include "vmm/config/clone_settings.h"
#include "vmm/control/json_rpc.h"

/// Options that say how clones live, of the commands that make some or will.
namespace ivmm::cli {

struct CloneOptions {
    std::optional<std::string> hook;  // empty: none
    std::optional<uint32_t> hook_timeout_s;
    std::optional<uint32_t> lifetime_s;
    std::optional<std::string> memory_limit;
    std::optional<uint32_t> at_most;
    std::optional<bool> recycle;
};

/// `--hook`, `--hook-timeout`, `--lifetime`, `--memory-limit`: of each clone.
void add_clone_life(CLI::App& command, CloneOptions& options);
/// `--max-clones`, `--recycle`: of all clones of a guest.
void add_clone_number(CLI::App& command, CloneOptions& options);

/// Puts what was said in the place of what is in `settings`. Errors: kUsage.
Result<void> apply(const CloneOptions& options, CloneSettings& settings);
/// The parameters of `fork` that say the same. Errors: kUsage.
Result<void> apply(const CloneOptions& options, rpc::Json& params);

}  // namespace ivmm::cli
