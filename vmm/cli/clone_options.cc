#include "vmm/cli/clone_options.h"

#include <CLI/CLI.hpp>
#include <filesystem>

#include "vmm/config/size.h"
#include "vmm/config/validate.h"

namespace ivmm::cli {
namespace {

std::string absolute_or_empty(const std::string& path) {
    return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

}  // namespace

void add_clone_life(CLI::App& command, CloneOptions& options) {
    command.add_option("--hook", options.hook,
                       "Program that changes a clone before its first instruction; \"\": none");
    command.add_option("--hook-timeout", options.hook_timeout_s,
                       "Seconds that it may take, 1 to 60 (default 10)");
    command.add_option("--lifetime", options.lifetime_s,
                       "Seconds after which a clone is stopped; 0: never (default)");
    command.add_option("--memory-limit", options.memory_limit,
                       "A clone that has more memory for itself is paused, such as 512M; 0: none "
                       "(default)");
}

void add_clone_number(CLI::App& command, CloneOptions& options) {
    command.add_option("--max-clones", options.at_most,
                       "Clones that may run at the same time (default 16)");
    command.add_flag("--recycle,!--no-recycle", options.recycle,
                     "Stop the oldest clone when there would be more");
}

Result<void> apply(const CloneOptions& options, CloneSettings& settings) {
    if (options.hook) {
        settings.hook.program = absolute_or_empty(*options.hook);
    }
    settings.hook.timeout_s = options.hook_timeout_s.value_or(settings.hook.timeout_s);
    settings.limits.lifetime_s = options.lifetime_s.value_or(settings.limits.lifetime_s);
    if (options.memory_limit) {
        IVMM_ASSIGN(settings.limits.memory_bytes, parse_size(*options.memory_limit));
    }
    settings.at_most = options.at_most.value_or(settings.at_most);
    settings.recycle = options.recycle.value_or(settings.recycle);
    return check_clone_settings(settings);
}

Result<void> apply(const CloneOptions& options, rpc::Json& params) {
    CloneSettings said;
    IVMM_TRY(apply(options, said));
    if (options.hook) {
        params["hook"] = said.hook.program;
    }
    if (options.hook_timeout_s) {
        params["hook_timeout_s"] = said.hook.timeout_s;
    }
    if (options.lifetime_s) {
        params["lifetime_s"] = said.limits.lifetime_s;
    }
    if (options.memory_limit) {
        params["memory_limit"] = said.limits.memory_bytes;
    }
    return {};
}

}  // namespace ivmm::cli
